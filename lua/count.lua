-- Return how many workflows a partition has: as its hash counts them, and as its sorted sets hold them.
--
-- KEYS[1]  partition  hash of the partition: made, workflows, unfinished
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  'repair' to set the counts to the sizes of the sorted sets, or ''
-- Reply    array: 1 if the partition was made, else 0; workflows counted, and in the index; unfinished counted, and in
--          the sorted set
-- Errors   none of its own

local partition, index, leases = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]

local indexed, leased = redis.call('ZCARD', index), redis.call('ZCARD', leases)
local counted = redis.call('HMGET', partition, 'made', 'workflows', 'unfinished')
if mode == 'repair' then
  redis.call('HSET', partition, 'made', '1', 'workflows', indexed, 'unfinished', leased)
end
return {counted[1] and 1 or 0, counted[2] or '0', indexed, counted[3] or '0', leased}
