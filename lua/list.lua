-- Return a page of a partition's workflows, the last written first, and the workflows that are over.
--
-- KEYS[1]  index      sorted set of the partition's workflows by the time of their last write (Unix microseconds)
-- KEYS[2]  expiring   sorted set of the partition's workflows that expire, by when (Unix milliseconds)
-- KEYS[3]  partition  hash of the partition: workflows, the number of workflows in the index
-- ARGV[1]  the highest score wanted
-- ARGV[2]  how many at most
-- ARGV[3]  the caller's time (Unix milliseconds)
-- Reply    array of two: workflow ids, each followed by its score; the ids of workflows that are over
-- Errors   DAMAGED <what>

--@include numbers
--@include clock

local index, expiring, partition = KEYS[1], KEYS[2], KEYS[3]
local highest, limit, caller_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- The rest of them comes with the next page.
local MOST_ENDED = 1000

if redis.call('ZCARD', index) ~= as_count(redis.call('HGET', partition, 'workflows')) then
  return redis.error_reply('DAMAGED index')
end
local _, ms = now()
-- Both clocks must have reached an end, see lua/expire.lua.
local ended = int(math.min(ms, caller_ms))
return {
  redis.call('ZREVRANGEBYSCORE', index, highest, '-inf', 'WITHSCORES', 'LIMIT', 0, limit),
  redis.call('ZRANGEBYSCORE', expiring, '-inf', ended, 'LIMIT', 0, MOST_ENDED),
}
