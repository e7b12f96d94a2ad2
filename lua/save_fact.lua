-- Keeps a fact once: what is there under its hash already stays.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- KEYS[2]  times   sorted set of the bucket's facts by the time when they were last written (Unix microseconds)
-- ARGV[1]  fact hash
-- ARGV[2]  fact: a digest of so many bytes, then the rest
-- ARGV[3]  length of the digest in bytes
-- ARGV[4]  the caller's time (Unix microseconds): the later one of it and the server's counts
-- Reply    integer: 1 if it was stored, 0 if it was there
-- Errors   FACT_DIFFERS, when another value is kept under the hash

--@include numbers
--@include clock

redis.call('ZCARD', KEYS[2])
local stored = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
if stored == 0 then
  local digest = tonumber(ARGV[3])
  local present = redis.call('HGET', KEYS[1], ARGV[1])
  if string.sub(present, 1, digest) ~= string.sub(ARGV[2], 1, digest) then return redis.error_reply('FACT_DIFFERS') end
end
-- Also of one that was there: whoever saves it is about to refer to it.
redis.call('ZADD', KEYS[2], int(math.max((now()), tonumber(ARGV[4]))), ARGV[1])
return stored
