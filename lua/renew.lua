-- Renew a lease: it lasts for its full time from now on.
--
-- KEYS[1]  meta       hash of the workflow: fence, lease_owner, lease_until
-- KEYS[2]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[3]  partition  hash of the partition: leased
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>'
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, percent-encoded>

--@include numbers
--@include clock
--@include owner
--@include lease

local meta_key, leases, partition = KEYS[1], KEYS[2], KEYS[3]
local workflow, lease = ARGV[1], ARGV[2]

local problem = lease_error(lease, redis.call('HGET', meta_key, 'fence'), meta_key, leases)
if problem then return redis.error_reply(problem) end
redis.call('HLEN', partition)
local _, ms = now()
extend_lease(lease, ms, workflow, meta_key, leases, partition)
return 1
