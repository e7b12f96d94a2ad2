-- Gives a finished workflow an end, at which it is deleted.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, completed, expires (Unix milliseconds)
-- KEYS[2]  expiring   sorted set of the partition's workflows that expire, by when
-- KEYS[3]  partition  hash of the partition: the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  for how many milliseconds from now on it is kept, '' for ever
-- ARGV[5]  the caller's time (Unix microseconds)
-- ARGV[6]  the end that this one takes the place of: another one stays; '' for any
-- Reply    integer: 1, or 0 if another end stays; nil if there is no such workflow
-- Errors   NOT_COMPLETE; END_REACHED
--
-- The end counts from the later one of the server's clock and the caller's, and the workflow is deleted once both have
-- reached it: no single clock that is set forward, nor a failover to a server whose clock is ahead, brings it closer.

--@include numbers
--@include clock
--@include calls
--@include replies

local meta = redis.call('HMGET', KEYS[1], 'created', 'completed', 'retried', 'expires')
if ARGV[3] ~= '' or meta[3] then
  local reply = remembered(KEYS[3], ARGV[2])
  if reply ~= nil then return as_reply(reply) end
end
local micros = now()
if ARGV[6] == '' and is_over(meta[4], math.min(micros, tonumber(ARGV[5]))) then return redis.error_reply('END_REACHED ') end

local function act()
  if not meta[1] then return false end
  if not meta[2] then return 'NOT_COMPLETE ' end
  if ARGV[6] ~= '' and meta[4] ~= ARGV[6] then return 0 end
  redis.call('ZCARD', KEYS[2])
  if ARGV[4] == '' then
    redis.call('HDEL', KEYS[1], 'expires')
    redis.call('ZREM', KEYS[2], ARGV[1])
    return 1
  end
  local at = int(math.floor(math.max(micros, tonumber(ARGV[5])) / 1000) + tonumber(ARGV[4]))
  redis.call('HSET', KEYS[1], 'expires', at)
  redis.call('ZADD', KEYS[2], at, ARGV[1])
  return 1
end

local reply = act()
if ARGV[3] ~= '' then remember(KEYS[3], ARGV[2], reply, KEYS[1], meta[1]) end
return as_reply(reply)
