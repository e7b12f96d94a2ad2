-- Removes the commits that a workflow's snapshot covers, and remembers how far.
--
-- KEYS[1]  events     stream of the workflow
-- KEYS[2]  meta       hash of the workflow: created, retried, trimmed, trimmed_ms, fence, lease_until, expires
-- KEYS[3]  snapshot   hash: cursor
-- KEYS[4]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[5]  partition  hash of the partition: leased, and the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  how many of the events that the snapshot covers to keep
-- ARGV[6]  the caller's time (Unix microseconds)
-- Reply    integer: the cursor of the last event that is gone, 0 if none is; nil if there is no such workflow
-- Errors   LEASE_LOST <owner, spelled>, DAMAGED <what>; END_REACHED
--
-- A commit that the snapshot covers only in part stays whole.

--@include numbers
--@include clock
--@include calls
--@include replies
--@include owner
--@include lease

local meta = redis.call('HMGET', KEYS[2], 'created', 'trimmed', 'fence', 'retried', 'expires')
if ARGV[3] ~= '' or meta[4] then
  local reply = remembered(KEYS[5], ARGV[2])
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[5], math.min(micros, tonumber(ARGV[6]))) then return redis.error_reply('END_REACHED ') end

local function act()
  local refusal = refused(ARGV[4], meta[3], KEYS[2], KEYS[4])
  if refusal then return refusal end
  if not meta[1] then return false end
  local trimmed = whole(meta[2])
  local covered = whole(redis.call('HGET', KEYS[3], 'cursor'))
  if not trimmed or not covered then return 'DAMAGED cursor' end
  covered = math.max(0, covered - tonumber(ARGV[5]))
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
  redis.call('XTRIM', KEYS[1], 'MINID', '=', int(trimmed + 1) .. '-0')
  redis.call('HSET', KEYS[2], 'trimmed', place, 'trimmed_ms', stamp)
  renew(ARGV[4], ms, ARGV[1], KEYS[2], KEYS[4], KEYS[5])
  return trimmed
end

local reply = act()
if ARGV[3] ~= '' then remember(KEYS[5], ARGV[2], reply, KEYS[2], meta[1]) end
return as_reply(reply)
