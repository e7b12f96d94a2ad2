-- Repair a partition's feed, unless it was trimmed or repaired since it was verified: trim its damaged part, or begin
-- it again at a position above all earlier ones. Its readers notice both by the place up to which it is trimmed.
--
-- KEYS[1]  partition  hash of the partition: position, feed_trimmed
-- KEYS[2]  feed       stream of the partition's commits
-- ARGV[1]  the verified value of feed_trimmed, '' if there was none
-- ARGV[2]  its new value, '<position>-<ms>': the entries up to that position are deleted; or '' to begin again
-- ARGV[3]  the highest position that a subscription has stored
-- Reply    integer: 1 if it was repaired, 0 if not
-- Errors   none

--@include numbers
--@include clock

local partition, feed = KEYS[1], KEYS[2]
local seen, trimmed, stored = ARGV[1], ARGV[2], tonumber(ARGV[3])

local state = redis.call('HMGET', partition, 'position', 'feed_trimmed')
if (state[2] or '') ~= seen then return 0 end
local last = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]

-- Return the position that a counter or an ID begins with; 0 if it is none, or too high to count on from it.
local function position_of(value)
  local position = as_count(string.match(value or '', '^%d+'))
  return position and position < 9007199254740991 and position or 0
end

if trimmed ~= '' then
  redis.call('XTRIM', feed, 'MINID', '=', int(tonumber(string.match(trimmed, '^%d+')) + 1) .. '-0')
  redis.call('HSET', partition, 'feed_trimmed', trimmed)
else
  local _, ms = now()
  local position = math.max(position_of(state[1]), position_of(state[2]), position_of(last and last[1]), stored)
  -- If the counter is lost, readers may know higher positions. But none is as high as the time.
  if position_of(state[1]) == 0 then position = math.max(position, ms) end
  -- A reader that has read all is at the last position, and must notice it too.
  position = position + 1
  redis.call('UNLINK', feed)
  redis.call('HSET', partition, 'position', int(position), 'feed_trimmed', int(position) .. '-' .. int(ms))
end
return 1
