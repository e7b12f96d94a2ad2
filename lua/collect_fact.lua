-- Delete a fact that no workflow refers to, unless it was written or referred to lately.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- KEYS[2]  times   sorted set of the bucket's facts by the time when they were last written (Unix microseconds)
-- ARGV[1]  the fact's hash
-- ARGV[2]  a fact that was written before this time is deleted (Unix microseconds)
-- Reply    integer: 1 if it was deleted, 0 if it stays or there is none
-- Errors   none

local bucket, times = KEYS[1], KEYS[2]
local hash, before = ARGV[1], tonumber(ARGV[2])

local written = redis.call('ZSCORE', times, hash)
if not written or tonumber(written) >= before then return 0 end
redis.call('ZREM', times, hash)
return redis.call('HDEL', bucket, hash)
