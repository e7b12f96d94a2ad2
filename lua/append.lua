-- Appends one commit to a workflow's stream, whole or not at all.
--
-- KEYS[1]  events    stream of the workflow
-- KEYS[2]  meta      hash of the workflow: cursor, created, retried, trimmed, trimmed_ms
-- KEYS[3]  commits   hash of the commit ids that must be known for good, to their cursors
-- KEYS[4]  index     sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2]  commit id
-- ARGV[3]  '1' if the caller gave the commit id, '0' if it is the store's own
-- ARGV[4]  expected cursor, or ''
-- ARGV[5]  on a first try ''; on a retry, milliseconds since the first try
-- ARGV[6]  metadata, or ''
-- ARGV[7…] for each entry: how many events it holds, its header, its payload
-- Reply    integer: the cursor after the commit
-- Errors   CURSOR_CONFLICT <actual cursor>; DAMAGED <what>; COMMIT_UNSURE, on a retry, when entries among which the
--          earlier try may have been are trimmed
--
-- Every key is read before the first write, so that a foreign value at one of them changes nothing.
-- A retry is remembered in `commits`, and `retried` makes first tries look there: a first try that the network
-- delivers after its own retry is known, and not stored again.

-- How far beyond the first try a retry looks back, in milliseconds: the clock may have been set meanwhile, or a failover
-- may have led to a server with another clock.
local MARGIN = 60000

local function int(number) return string.format('%.0f', number) end

-- A count as it is kept: nothing is 0, and what is no count is nil.
local function whole(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end

local meta = redis.call('HMGET', KEYS[2], 'cursor', 'created', 'retried')
local cursor = whole(meta[1])
if not cursor then return redis.error_reply('DAMAGED cursor') end
local retry = ARGV[5] ~= ''
local given = ARGV[3] == '1'
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local ms = math.floor(micros / 1000)

if given or retry or meta[3] then
  local known = redis.call('HGET', KEYS[3], ARGV[2])
  if known then return whole(known) or redis.error_reply('DAMAGED commits') end
end

local added = 0
for at = 7, #ARGV, 3 do added = added + tonumber(ARGV[at]) end

-- Where an earlier try of this commit ended, if it was stored; and whether it may have been stored and trimmed. With
-- an expected cursor it can only be in one place; without one it is among the entries since the first try, the newest
-- of which come first.
local function earlier_try()
  local trim = redis.call('HMGET', KEYS[2], 'trimmed', 'trimmed_ms')
  if ARGV[4] ~= '' then
    local place = tonumber(ARGV[4]) + added
    local entry = redis.call('XRANGE', KEYS[1], int(place), int(place))[1]
    if entry and entry[2][4] == ARGV[2] then return place end
    return false, trim[1] and place <= tonumber(trim[1])
  end
  local upper, first_try = '+', ms - tonumber(ARGV[5])
  repeat
    local page = redis.call('XREVRANGE', KEYS[1], upper, '-', 'COUNT', 16)
    for _, entry in ipairs(page) do
      local place, stamp = string.match(entry[1], '(%d+)-(%d+)')
      if entry[2][4] == ARGV[2] then return tonumber(place) end
      if tonumber(stamp) < first_try - MARGIN then return false end
      upper = '(' .. entry[1]
    end
  until #page < 16
  -- Of what is trimmed, no more than a second beyond: a workflow that is trimmed often must not fail each retry.
  return false, trim[2] and tonumber(trim[2]) >= first_try - 1000
end

if retry and not given and added > 0 then
  local found, unsure = earlier_try()
  if found then return found end
  if unsure then return redis.error_reply('COMMIT_UNSURE') end
end
if ARGV[4] ~= '' and cursor ~= tonumber(ARGV[4]) then
  return redis.error_reply('CURSOR_CONFLICT ' .. int(cursor))
end
if added == 0 then return cursor end

redis.call('ZSCORE', KEYS[4], ARGV[1])
for at = 7, #ARGV, 3 do
  cursor = cursor + tonumber(ARGV[at])
  local id = int(cursor) .. '-' .. int(ms)
  if ARGV[6] == '' then
    redis.call('XADD', KEYS[1], id, ARGV[at + 1], ARGV[at + 2], 'i', ARGV[2])
  else
    redis.call('XADD', KEYS[1], id, ARGV[at + 1], ARGV[at + 2], 'i', ARGV[2], 'm', ARGV[6])
  end
end
redis.call('HSET', KEYS[2], 'cursor', int(cursor))
if not meta[2] then redis.call('HSET', KEYS[2], 'created', int(micros)) end
if given or retry then redis.call('HSET', KEYS[3], ARGV[2], int(cursor)) end
if retry and not meta[3] then redis.call('HSET', KEYS[2], 'retried', '1') end
redis.call('ZADD', KEYS[4], int(micros), ARGV[1])
return cursor
