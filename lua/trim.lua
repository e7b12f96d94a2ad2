-- Removes the commits that a workflow's snapshot covers, and remembers how far.
--
-- KEYS[1]  events    stream of the workflow
-- KEYS[2]  meta      hash of the workflow: created, trimmed, trimmed_ms, fence, lease_until
-- KEYS[3]  snapshot  hash: cursor
-- KEYS[4]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[3]  how many of the events that the snapshot covers to keep
-- Reply    integer: the cursor of the last event that is gone, 0 if none is; nil if there is no such workflow
-- Errors   LEASE_LOST <owner>, DAMAGED <what>
--
-- A commit that the snapshot covers only in part stays whole.

--@include clock
--@include numbers
--@include lease

local meta = redis.call('HMGET', KEYS[2], 'created', 'trimmed', 'fence')
local refusal = refused(ARGV[2], meta[3], KEYS[2], KEYS[4])
if refusal then return redis.error_reply(refusal) end
if not meta[1] then return false end
local trimmed = whole(meta[2])
local covered = whole(redis.call('HGET', KEYS[3], 'cursor'))
if not trimmed or not covered then return redis.error_reply('DAMAGED cursor') end
covered = math.max(0, covered - tonumber(ARGV[3]))
local last = redis.call('XREVRANGE', KEYS[1], int(covered), '-', 'COUNT', 1)[1]
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
local _, ms = now()
redis.call('XTRIM', KEYS[1], 'MINID', '=', int(trimmed + 1) .. '-0')
redis.call('HSET', KEYS[2], 'trimmed', place, 'trimmed_ms', stamp)
renew(ARGV[2], ms, ARGV[1], KEYS[2], KEYS[4])
return trimmed
