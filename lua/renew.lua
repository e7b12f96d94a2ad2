-- Renew a lease: it lasts for its full time from now on.
--
-- KEYS[1]  meta       hash of the workflow: fence, lease_owner, lease_until, queue, expires
-- KEYS[2]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[3]  queues     hash of how many workflows each queue of the partition has
-- KEYS[4]  queue      sorted set of the queue's workflows by when they are due
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>'
-- ARGV[3]  the caller's time (Unix microseconds)
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, percent-encoded>; OTHER_KEY <place> <key>; END_REACHED

--@include numbers
--@include clock
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include lease

local meta_key, leases, queues, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local workflow, text, caller_us = ARGV[1], ARGV[2], ARGV[3]

local micros, ms = now()
local expires = redis.call('HGET', meta_key, 'expires')
if is_over(expires, math.min(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end
local lease = lease_of(text, workflow, meta_key, leases, queues, queue, 4)
local problem = lease_error(lease)
if problem then return redis.error_reply(problem) end
extend_lease(lease, ms)
return 1
