-- What is wrong with the partition that a workflow is about to be made in: an error, or nothing; and whether first tries
-- must look themselves up, because calls were remembered in the partition.
local function partition_state(partition)
  local state = redis.pcall('HMGET', partition, 'made', 'next')
  if state.err then return state.err end
  if not state[1] then return 'NEW_PARTITION ' end
  return nil, state[2]
end
