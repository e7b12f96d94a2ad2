-- Trim the oldest entries of a partition's feed, and note how far.
--
-- KEYS[1]  feed       stream of the partition's commits
-- KEYS[2]  partition  hash of the partition: feed_trimmed
-- ARGV[1]  the position up to which entries may be trimmed
-- ARGV[2]  how many entries to keep at least
-- ARGV[3]  how many entries to trim at most
-- Reply    integer: how many entries were trimmed
-- Errors   none

local feed, partition = KEYS[1], KEYS[2]
local upto, keep, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local count = math.min(most, redis.call('XLEN', feed) - keep)
if count <= 0 then return 0 end
redis.call('HLEN', partition) -- reject a foreign value before the first change
local entries = redis.call('XRANGE', feed, '-', '+', 'COUNT', count)
local last, trimmed
for number, entry in ipairs(entries) do
  local position = tonumber(string.match(entry[1], '^%d+'))
  if position > upto then break end
  last, trimmed = entry[1], number
end
if not last then return 0 end
local position, ms = string.match(last, '^(%d+)-(%d+)$')
redis.call('XTRIM', feed, 'MINID', '=', string.format('%.0f-0', tonumber(position) + 1))
redis.call('HSET', partition, 'feed_trimmed', position .. '-' .. ms)
return trimmed
