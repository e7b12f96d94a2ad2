-- Return the error that keeps a workflow from being created in a partition. Without one, return nil, and a true value
-- if the partition keeps replies to retries, so that first tries must look for theirs. A user who may not count is
-- rejected here, before anything is written.
local function partition_error(partition)
  local state = redis.pcall('HMGET', partition, 'made', 'next')
  if state.err then return state.err end
  if not state[1] then return 'NEW_PARTITION ' end
  local counted = redis.pcall('HINCRBY', partition, 'workflows', 0)
  if type(counted) == 'table' then return counted.err end
  return nil, state[2]
end
