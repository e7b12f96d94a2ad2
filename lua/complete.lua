-- Marks a workflow as finished: nobody can claim it any more.
--
-- KEYS[1]  meta    hash of the workflow: created, fence, lease_owner, completed (Unix milliseconds)
-- KEYS[2]  leases  sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>', or ''
-- Reply    integer: 1, or 0 if it was finished before; nil if there is no such workflow
-- Errors   LEASE_LOST <owner>

--@include clock
--@include numbers
--@include lease

local meta = redis.call('HMGET', KEYS[1], 'created', 'fence', 'completed')
if meta[1] and meta[3] then return 0 end
local refusal = refused(ARGV[2], meta[2], KEYS[1], KEYS[2])
if refusal then return redis.error_reply(refusal) end
if not meta[1] then return false end
redis.call('ZCARD', KEYS[2])
local _, ms = now()
-- HSET first: to a user who may not use it, nothing is done.
redis.call('HSET', KEYS[1], 'completed', int(ms))
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
