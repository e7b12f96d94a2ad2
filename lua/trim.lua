-- Removes the commits that a workflow's snapshot covers, and remembers how far.
--
-- KEYS[1]  events    stream of the workflow
-- KEYS[2]  meta      hash of the workflow: created, trimmed, trimmed_ms
-- KEYS[3]  snapshot  hash: cursor
-- Reply    integer: the cursor of the last event that is gone, 0 if none is; nil if there is no such workflow
-- Errors   DAMAGED <what>
--
-- A commit that the snapshot covers only in part stays whole.

-- A count as it is kept: nothing is 0, and what is no count is nil.
local function whole(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end

local meta = redis.call('HMGET', KEYS[2], 'created', 'trimmed')
if not meta[1] then return false end
local trimmed = whole(meta[2])
local covered = whole(redis.call('HGET', KEYS[3], 'cursor'))
if not trimmed or not covered then return redis.error_reply('DAMAGED cursor') end
local last = redis.call('XREVRANGE', KEYS[1], string.format('%.0f', covered), '-', 'COUNT', 1)[1]
if not last then return trimmed end
-- A large commit is several entries: if one of the last entry's commit comes after it, the whole commit stays.
local next_entry = redis.call('XRANGE', KEYS[1], '(' .. last[1], '+', 'COUNT', 1)[1]
if next_entry then
  local cut = next_entry[2][4]
  while last and last[2][4] == cut do
    last = redis.call('XREVRANGE', KEYS[1], '(' .. last[1], '-', 'COUNT', 1)[1]
  end
  if not last then return trimmed end
end

local place, stamp = string.match(last[1], '(%d+)-(%d+)')
trimmed = tonumber(place)
redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f-0', trimmed + 1))
redis.call('HSET', KEYS[2], 'trimmed', place, 'trimmed_ms', stamp)
return trimmed
