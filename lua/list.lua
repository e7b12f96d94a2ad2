-- A page of a partition's workflows, the one written to last first, and those whose end is reached.
--
-- KEYS[1]  index      sorted set of the partition's workflows by the time of their last write (Unix microseconds)
-- KEYS[2]  expiring   sorted set of the partition's workflows that expire, by when (Unix milliseconds)
-- KEYS[3]  partition  hash of the partition: workflows, how many stand in the index
-- ARGV[1]  the highest score wanted
-- ARGV[2]  at most how many
-- ARGV[3]  the caller's time (Unix milliseconds)
-- Reply    array of two: workflow ids, each followed by its score; the ids of workflows that are over
-- Errors   DAMAGED <what>

--@include numbers
--@include clock

-- Two clocks must have reached an end, see lua/expire.lua. Of more, the rest comes with the next page.
local MOST_ENDED = 1000

if redis.call('ZCARD', KEYS[1]) ~= whole(redis.call('HGET', KEYS[3], 'workflows')) then
  return redis.error_reply('DAMAGED index')
end
local _, ms = now()
local ended = int(math.min(ms, tonumber(ARGV[3])))
return {
  redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2]),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ended, 'LIMIT', 0, MOST_ENDED),
}
