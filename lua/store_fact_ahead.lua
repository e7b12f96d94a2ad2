-- Store a fact before the write that refers to it, where the script of that write cannot: the fact's slot is another.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- KEYS[2]  times   sorted set of the bucket's facts by the time when they were last written (Unix microseconds)
-- ARGV[1]  the fact's hash
-- ARGV[2]  its value, or '' if the fact must be stored already
-- ARGV[3]  the caller's time (Unix microseconds): the later one of it and the server's counts
-- Reply    integer: 1
-- Errors   FACT_MISSING <hash>

--@include numbers
--@include clock

local bucket, times = KEYS[1], KEYS[2]
local hash, value, caller_us = ARGV[1], ARGV[2], tonumber(ARGV[3])

redis.call('ZCARD', times)
if redis.call('HEXISTS', bucket, hash) == 0 then
  if value == '' then return redis.error_reply('FACT_MISSING ' .. hash) end
  redis.call('HSET', bucket, hash, value)
end
redis.call('ZADD', times, int(math.max((now()), caller_us)), hash)
return 1
