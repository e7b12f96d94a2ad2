-- Removes a fact that no workflow refers to, unless somebody has written it, or referred to it, lately.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- KEYS[2]  times   sorted set of the bucket's facts by the time when they were last written (Unix microseconds)
-- ARGV[1]  the fact's hash
-- ARGV[2]  what was written before this time is removed
-- Reply    integer: 1 if it was removed, 0 if it stays or is gone
-- Errors   none of its own

local written = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not written or tonumber(written) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
