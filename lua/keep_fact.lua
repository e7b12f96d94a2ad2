-- Has a fact stay that a commit is about to refer to: where slots matter, and the script that refers to it cannot
-- touch it.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- KEYS[2]  times   sorted set of the bucket's facts by the time when they were last written (Unix microseconds)
-- ARGV[1]  a fact's hash
-- ARGV[2]  its value, or '' if it must be there
-- ARGV[3]  the caller's time (Unix microseconds): the later one of it and the server's counts
-- Reply    integer: 1
-- Errors   FACT_MISSING <hash>

--@include numbers
--@include clock

redis.call('ZCARD', KEYS[2])
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  if ARGV[2] == '' then return redis.error_reply('FACT_MISSING ' .. ARGV[1]) end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('ZADD', KEYS[2], int(math.max((now()), tonumber(ARGV[3]))), ARGV[1])
return 1
