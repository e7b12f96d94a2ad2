-- Renew a lease: it lasts for its full time from now on.
--
-- KEYS[1]  meta       hash of the workflow: fence, lease_owner, lease_until, expires
-- KEYS[2]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[3]  partition  hash of the partition: leased
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>'
-- ARGV[3]  the caller's time (Unix microseconds)
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, percent-encoded>; END_REACHED

--@include numbers
--@include clock
--@include owner
--@include lease

local meta_key, leases, partition = KEYS[1], KEYS[2], KEYS[3]
local workflow, lease, caller_us = ARGV[1], ARGV[2], ARGV[3]

local meta = redis.call('HMGET', meta_key, 'fence', 'expires')
local micros, ms = now()
if is_over(meta[2], math.min(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end
local problem = lease_error(lease, meta[1], meta_key, leases)
if problem then return redis.error_reply(problem) end
redis.call('HLEN', partition)
extend_lease(lease, ms, workflow, meta_key, leases, partition)
return 1
