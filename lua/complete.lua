-- Marks a workflow as finished: nobody can claim it any more.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, fence, lease_owner, completed (Unix milliseconds), expires
-- KEYS[2]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[3]  partition  hash of the partition: counts, and the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  the caller's time (Unix microseconds)
-- Reply    integer: 1, or 0 if it was finished before; nil if there is no such workflow
-- Errors   LEASE_LOST <owner, spelled>; END_REACHED

--@include numbers
--@include clock
--@include unfinished
--@include calls
--@include replies
--@include owner
--@include lease

local meta = redis.call('HMGET', KEYS[1], 'created', 'fence', 'completed', 'retried', 'expires')
if ARGV[3] ~= '' or meta[4] then
  local reply = remembered(KEYS[3], ARGV[2])
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[5], math.min(micros, tonumber(ARGV[5]))) then return redis.error_reply('END_REACHED ') end

local function act()
  if meta[1] and meta[3] then return 0 end
  local refusal = refused(ARGV[4], meta[2], KEYS[1], KEYS[2])
  if refusal then return refusal end
  if not meta[1] then return false end
  redis.call('ZCARD', KEYS[2])
  -- HSET first: to a user who may not use it, nothing is done.
  redis.call('HSET', KEYS[1], 'completed', int(ms))
  drop_unfinished(KEYS[2], KEYS[3], ARGV[1])
  return 1
end

local reply = act()
if ARGV[3] ~= '' then remember(KEYS[3], ARGV[2], reply, KEYS[1], meta[1]) end
return as_reply(reply)
