-- Has a lease last on.
--
-- KEYS[1]  meta       hash of the workflow: fence, lease_owner, lease_until
-- KEYS[2]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[3]  partition  hash of the partition: leased
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>'
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, spelled>

--@include numbers
--@include clock
--@include owner
--@include lease

local refusal = refused(ARGV[2], redis.call('HGET', KEYS[1], 'fence'), KEYS[1], KEYS[2])
if refusal then return redis.error_reply(refusal) end
redis.call('HLEN', KEYS[3])
local _, ms = now()
prolong(ARGV[2], ms, ARGV[1], KEYS[1], KEYS[2], KEYS[3])
return 1
