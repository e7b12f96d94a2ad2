-- Has a lease last on.
--
-- KEYS[1]  meta    hash of the workflow: fence, lease_owner, lease_until
-- KEYS[2]  leases  sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>'
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner>

--@include clock
--@include numbers
--@include lease

local refusal = refused(ARGV[2], redis.call('HGET', KEYS[1], 'fence'), KEYS[1], KEYS[2])
if refusal then return redis.error_reply(refusal) end
local _, ms = now()
prolong(ARGV[2], ms, ARGV[1], KEYS[1], KEYS[2])
return 1
