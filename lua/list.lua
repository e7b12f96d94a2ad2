-- A page of a partition's workflows, the one written to last first, once those that have expired are out of the index.
--
-- KEYS[1]  index     sorted set of the partition's workflows by the time of their last write (Unix microseconds)
-- KEYS[2]  expiring  sorted set of the partition's workflows that expire, by when (Unix milliseconds)
-- ARGV[1]  the highest score wanted
-- ARGV[2]  at most how many
-- Reply    array: workflow ids, each followed by its score
-- Errors   none of its own

--@include clock
--@include numbers

local _, ms = now()
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', int(ms), 'WITHSCORES')
for at = 1, #due, 2 do
  local written = redis.call('ZSCORE', KEYS[1], due[at])
  -- One that was written to since is another life of it.
  if written and tonumber(written) < tonumber(due[at + 1]) * 1000 then redis.call('ZREM', KEYS[1], due[at]) end
  redis.call('ZREM', KEYS[2], due[at])
end
return redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
