-- Gives all keys of a finished workflow a time to live.
--
-- KEYS[1]  events
-- KEYS[2]  meta      hash of the workflow: created, completed, expires (Unix milliseconds)
-- KEYS[3]  snapshot
-- KEYS[4]  log
-- KEYS[5]  commits
-- KEYS[6]  refs
-- KEYS[7]  expiring  sorted set of the partition's workflows that expire, by when
-- ARGV[1]  workflow id
-- ARGV[2]  for how many milliseconds from now on it is kept
-- Reply    integer: 1; nil if there is no such workflow
-- Errors   NOT_COMPLETE
--
-- `expires` has what is written later expire with the rest. The place in the index goes when somebody next lists.

--@include clock
--@include numbers

local meta = redis.call('HMGET', KEYS[2], 'created', 'completed')
if not meta[1] then return false end
if not meta[2] then return redis.error_reply('NOT_COMPLETE') end
-- PEXPIREAT would take a foreign value of any type along; reading first refuses it.
redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[3])
redis.call('STRLEN', KEYS[4])
redis.call('HLEN', KEYS[5])
redis.call('SCARD', KEYS[6])
local _, ms = now()
local at = int(ms + tonumber(ARGV[2]))
redis.call('ZADD', KEYS[7], at, ARGV[1])
redis.call('HSET', KEYS[2], 'expires', at)
for number = 1, 6 do redis.call('PEXPIREAT', KEYS[number], at) end
return 1
