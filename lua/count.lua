-- How many workflows a partition has, as it has counted them and as they stand in its sorted sets.
--
-- KEYS[1]  partition  hash of the partition: made, workflows, unfinished
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  'repair' to have the sorted sets count, ''
-- Reply    array: 1 if the partition was made, else 0; workflows counted, and in the index; unfinished counted, and in
--          the sorted set
-- Errors   none of its own

local index, leases = redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[3])
local kept = redis.call('HMGET', KEYS[1], 'made', 'workflows', 'unfinished')
if ARGV[1] == 'repair' then
  redis.call('HSET', KEYS[1], 'made', '1', 'workflows', index, 'unfinished', leases)
end
return {kept[1] and 1 or 0, kept[2] or '0', index, kept[3] or '0', leases}
