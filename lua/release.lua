-- Release a lease: it can write nothing more, and the workflow can be claimed at once, if it is unfinished.
--
-- KEYS[1]  meta    hash of the workflow: fence, lease_id, lease_owner, lease_until, lease_ms
-- KEYS[2]  leases  sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  fencing token
-- Reply    integer: 1, or 0 if the lease was lost or released before
-- Errors   none of its own

--@include numbers

local meta_key, leases = KEYS[1], KEYS[2]
local workflow, token = ARGV[1], ARGV[2]

if redis.call('HGET', meta_key, 'fence') ~= token then return 0 end
redis.call('ZADD', leases, 'XX', 0, workflow)
redis.call('HSET', meta_key, 'fence', int(tonumber(token) + 1))
redis.call('HDEL', meta_key, 'lease_id', 'lease_owner', 'lease_until', 'lease_ms')
return 1
