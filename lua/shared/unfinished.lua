-- Add a workflow to the unfinished ones by the end of its lease, and count it if it is new there.
local function add_unfinished(leases, partition, ends, workflow)
  if redis.call('ZADD', leases, ends, workflow) == 1 then redis.pcall('HINCRBY', partition, 'unfinished', 1) end
end

-- Remove a workflow from the unfinished ones, and from their count.
local function remove_unfinished(leases, partition, workflow)
  if redis.call('ZREM', leases, workflow) == 1 then redis.pcall('HINCRBY', partition, 'unfinished', -1) end
end
