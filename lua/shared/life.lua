-- Goes with the clock.

-- Whether a workflow's end is reached by the server's clock. The caller compares it with its own clock, and then deletes
-- the workflow or postpones its end: see operations/ending.py.
local function is_over(expires, ms) return expires and (tonumber(expires) or math.huge) <= ms end

-- What is wrong with the partition that a workflow is about to be made in: an error, or nothing; and whether first tries
-- must look themselves up, because calls were remembered in the partition.
local function partition_state(partition)
  local state = redis.pcall('HMGET', partition, 'made', 'next')
  if state.err then return state.err end
  if not state[1] then return 'NEW_PARTITION ' end
  return nil, state[2]
end

-- Writes down that a workflow was written to, and counts it if it is new to the index.
local function touch_index(index, partition, score, workflow)
  if redis.call('ZADD', index, score, workflow) == 1 then redis.pcall('HINCRBY', partition, 'workflows', 1) end
end

-- Puts an unfinished workflow where its lease ends, and counts it if it is new there.
local function put_unfinished(leases, partition, ends, workflow)
  if redis.call('ZADD', leases, ends, workflow) == 1 then redis.pcall('HINCRBY', partition, 'unfinished', 1) end
end

-- Takes a workflow out of the unfinished.
local function drop_unfinished(leases, partition, workflow)
  if redis.call('ZREM', leases, workflow) == 1 then redis.pcall('HINCRBY', partition, 'unfinished', -1) end
end
