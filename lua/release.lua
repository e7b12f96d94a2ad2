-- Gives a lease back: nothing more can be written by it, and the workflow, if it is unfinished, can be claimed at once.
--
-- KEYS[1]  meta    hash of the workflow: fence, lease_id, lease_owner, lease_until, lease_ms
-- KEYS[2]  leases  sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  fencing token
-- Reply    integer: 1, or 0 if the lease was lost or given back before
-- Errors   none of its own

--@include numbers

if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], 'XX', 0, ARGV[1])
redis.call('HSET', KEYS[1], 'fence', int(tonumber(ARGV[2]) + 1))
redis.call('HDEL', KEYS[1], 'lease_id', 'lease_owner', 'lease_until', 'lease_ms')
return 1
