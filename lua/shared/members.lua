-- Add a workflow to one of the partition's sorted sets, and count it in the partition's `field` if it is new there.
local function add_member(set, score, workflow, partition, field)
  if redis.call('ZADD', set, score, workflow) == 1 then redis.pcall('HINCRBY', partition, field, 1) end
end

-- Remove a workflow from one of the partition's sorted sets, and from the count of that set.
local function remove_member(set, workflow, partition, field)
  if redis.call('ZREM', set, workflow) == 1 then redis.pcall('HINCRBY', partition, field, -1) end
end
