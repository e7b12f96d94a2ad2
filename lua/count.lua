-- Return how many workflows a partition has: as its hash counts them, and as its sorted sets hold them.
--
-- KEYS[1]  partition  hash of the partition: made, workflows, unfinished, completed, position
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[4]  completed  sorted set of the partition's completed workflows by the time of that
-- KEYS[5]  expiring   sorted set of the partition's workflows that expire, by when
-- KEYS[6]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- ARGV[1]  'repair' to set the counts to the sizes of the sorted sets, and a position that is lost to that of the
--          feed's last entry; 'states' to count by time too; or ''
-- ARGV[2]  the caller's time (Unix milliseconds)
-- Reply    array: 1 if the partition was made, else 0; workflows counted, and in the index; unfinished counted, and in
--          the sorted set; completed counted, and in the sorted set; and with 'states', how many leases run, and how
--          many workflows are over
-- Errors   none of its own

--@include numbers
--@include clock

local partition, index, leases, completed, expiring, feed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local mode, caller_ms = ARGV[1], tonumber(ARGV[2])

local indexed, leased = redis.call('ZCARD', index), redis.call('ZCARD', leases)
local done = redis.call('ZCARD', completed)
local counted = redis.call('HMGET', partition, 'made', 'workflows', 'unfinished', 'completed')
if mode == 'repair' then
  -- A foreign value there keeps no other count from being repaired.
  local last = feed ~= index and redis.pcall('XREVRANGE', feed, '+', '-', 'COUNT', 1)
  last = last and last[1] and string.match(last[1][1], '^%d+')
  -- The next commit takes the position after it.
  if last and as_count(last) and as_count(last) > (as_count(redis.call('HGET', partition, 'position')) or 0) then
    redis.call('HSET', partition, 'position', last)
  end
  redis.call('HSET', partition, 'made', '1', 'workflows', indexed, 'unfinished', leased, 'completed', done)
end
local running, over = 0, 0
if mode == 'states' then
  local _, ms = now()
  running = redis.call('ZCOUNT', leases, '(' .. int(ms), '+inf')
  -- Both clocks must have reached an end, see lua/expire.lua.
  over = redis.call('ZCOUNT', expiring, '-inf', int(math.min(ms, caller_ms)))
end
return {
  counted[1] and 1 or 0, counted[2] or '0', indexed, counted[3] or '0', leased, counted[4] or '0', done, running, over
}
