-- What is wrong with the partition that a workflow is about to be made in: an error, or nothing; and whether first tries
-- must look themselves up, because calls were remembered in the partition. A user who may not count is rejected here,
-- before anything is written.
local function partition_state(partition)
  local state = redis.pcall('HMGET', partition, 'made', 'next')
  if state.err then return state.err end
  if not state[1] then return 'NEW_PARTITION ' end
  local counted = redis.pcall('HINCRBY', partition, 'workflows', 0)
  if type(counted) == 'table' then return counted.err end
  return nil, state[2]
end
