-- Give a workflow its score in the index, and count the workflow if it is new there.
local function touch_index(index, partition, score, workflow)
  if redis.call('ZADD', index, score, workflow) == 1 then redis.pcall('HINCRBY', partition, 'workflows', 1) end
end
