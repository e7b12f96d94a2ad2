-- Store a fact once: a fact that is stored under its hash already stays.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- KEYS[2]  times   sorted set of the bucket's facts by the time when they were last written (Unix microseconds)
-- ARGV[1]  the fact's hash
-- ARGV[2]  the fact: a digest of that many bytes, then the rest
-- ARGV[3]  length of the digest in bytes
-- ARGV[4]  the caller's time (Unix microseconds): the later one of it and the server's counts
-- Reply    integer: 1 if it was stored, 0 if it was stored before
-- Errors   FACT_DIFFERS, if another value is stored under the hash

--@include numbers
--@include clock

local bucket, times = KEYS[1], KEYS[2]
local hash, fact, digest_size, caller_us = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

redis.call('ZCARD', times)
local added = redis.call('HSETNX', bucket, hash, fact)
if added == 0 then
  local stored = redis.call('HGET', bucket, hash)
  if string.sub(stored, 1, digest_size) ~= string.sub(fact, 1, digest_size) then
    return redis.error_reply('FACT_DIFFERS')
  end
end
-- A fact that was stored before gets a new time, too: the caller is about to refer to it.
redis.call('ZADD', times, int(math.max((now()), caller_us)), hash)
return added
