-- Writes down that a workflow was written to, and counts it if it is new to the index.
local function touch_index(index, partition, score, workflow)
  if redis.call('ZADD', index, score, workflow) == 1 then redis.pcall('HINCRBY', partition, 'workflows', 1) end
end
