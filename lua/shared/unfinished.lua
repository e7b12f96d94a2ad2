-- Puts an unfinished workflow where its lease ends, and counts it if it is new there.
local function put_unfinished(leases, partition, ends, workflow)
  if redis.call('ZADD', leases, ends, workflow) == 1 then redis.pcall('HINCRBY', partition, 'unfinished', 1) end
end

-- Takes a workflow out of the unfinished.
local function drop_unfinished(leases, partition, workflow)
  if redis.call('ZREM', leases, workflow) == 1 then redis.pcall('HINCRBY', partition, 'unfinished', -1) end
end
