-- Appends commits to a workflow's stream, each whole or not at all.
--
-- KEYS[1]  events    stream of the workflow
-- KEYS[2]  meta      hash of the workflow: cursor, created, largest, retried, trimmed, trimmed_ms
-- KEYS[3]  commits   hash of the commit ids that must be known for good, to their cursors
-- KEYS[4]  index     sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2…] for each commit: its id; how it is asked for; expected cursor, or ''; metadata, or ''; how many entries it
--          has; and for each of these, how many events it holds, its header, its payload.
--          It is asked for as '' (a first try, with an id of the store's own), 'given' (an id that the caller gave), or
--          the milliseconds since the first try (a retry, with an id of the store's own)
-- Reply    array, for each commit: integer, the cursor after it; or one of its own errors, as a string
-- Errors   of the whole call: DAMAGED <what>; of a commit: CURSOR_CONFLICT <actual cursor>; DAMAGED <what>;
--          COMMIT_UNSURE, on a retry, when entries among which the earlier try may have been are trimmed
--
-- Every key is read before the first write, so that a foreign value at one of them changes nothing.
-- A retry is remembered in `commits`, and `retried` makes first tries look there: a first try that the network
-- delivers after its own retry is known, and not stored again.

-- How far beyond the first try a retry looks back, in milliseconds: the clock may have been set meanwhile, or a failover
-- may have led to a server with another clock.
local MARGIN = 60000
-- From how many bytes on an entry counts as large: the largest one's size tells readers how many they may ask for.
local LARGE = 8192

local call, args = redis.call, ARGV
local events, meta_key, commits, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local workflow = ARGV[1]

-- A number as Redis takes it; written out by itself, Lua keeps 14 digits of one, and passed as an argument, all.
local function int(number) return string.format('%.0f', number) end

-- A count as it is kept: nothing is 0, and what is no count is nil.
local function whole(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end

local meta = call('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest')
local cursor = whole(meta[1])
if not cursor then return redis.error_reply('DAMAGED cursor') end
call('ZSCORE', index, workflow)
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local ms = math.floor(micros / 1000)
local suffix = '-' .. ms

-- Where an earlier try of a commit ended, if it was stored; and whether it may have been stored and trimmed. With
-- an expected cursor it can only be in one place; without one it is among the entries since the first try, the newest
-- of which come first.
local function earlier_try(id, since_first, expected, added)
  local trim = call('HMGET', meta_key, 'trimmed', 'trimmed_ms')
  if expected ~= '' then
    local place = tonumber(expected) + added
    local entry = call('XRANGE', events, int(place), int(place))[1]
    if entry and entry[2][4] == id then return place end
    return false, trim[1] and place <= tonumber(trim[1])
  end
  local upper, first_try = '+', ms - tonumber(since_first)
  repeat
    local page = call('XREVRANGE', events, upper, '-', 'COUNT', 16)
    for _, entry in ipairs(page) do
      local place, stamp = string.match(entry[1], '(%d+)-(%d+)')
      if entry[2][4] == id then return tonumber(place) end
      if tonumber(stamp) < first_try - MARGIN then return false end
      upper = '(' .. entry[1]
    end
  until #page < 16
  -- Of what is trimmed, no more than a second beyond: a workflow that is trimmed often must not fail each retry.
  return false, trim[2] and tonumber(trim[2]) >= first_try - 1000
end

-- Whether commit ids must be looked up: all are, so that nothing fails any more once something was written.
local retried, last, at = meta[3], #ARGV, 2
local lookups = retried
while at < last do
  lookups = lookups or args[at + 1] ~= ''
  at = at + 5 + 3 * args[at + 4]
end
if lookups then call('HLEN', commits) end

local replies, start, largest = {}, cursor, 0
at = 2
while at < last do
  local id, asked, expected, metadata = args[at], args[at + 1], args[at + 2], args[at + 3]
  local first = at + 5
  at = first + 3 * args[at + 4]
  local retry = asked ~= '' and asked ~= 'given'
  local reply
  if lookups then
    local known = call('HGET', commits, id)
    if known then reply = whole(known) or 'DAMAGED commits' end
  end
  if retry and not reply and first < at then
    local added = 0
    for entry = first, at - 1, 3 do added = added + args[entry] end
    local found, unsure = earlier_try(id, asked, expected, added)
    reply = found or unsure and 'COMMIT_UNSURE'
  end
  if not reply and expected ~= '' and cursor ~= tonumber(expected) then
    reply = 'CURSOR_CONFLICT ' .. int(cursor)
  end
  if not reply then
    for entry = first, at - 1, 3 do
      cursor = cursor + args[entry]
      largest = math.max(largest, #args[entry + 1] + #args[entry + 2])
      if metadata == '' then
        call('XADD', events, (cursor < 1e14 and cursor or int(cursor)) .. suffix, args[entry + 1], args[entry + 2], 'i', id)
      else
        call('XADD', events, (cursor < 1e14 and cursor or int(cursor)) .. suffix, args[entry + 1], args[entry + 2], 'i', id, 'm', metadata)
      end
    end
    if asked ~= '' and first < at then
      call('HSET', commits, id, int(cursor))
      if retry and not retried then
        retried = '1'
        call('HSET', meta_key, 'retried', retried)
      end
    end
    reply = cursor
  end
  replies[#replies + 1] = reply
end

if cursor > start then
  call('HSET', meta_key, 'cursor', cursor)
  if largest >= LARGE and largest > tonumber(meta[4] or 0) then call('HSET', meta_key, 'largest', largest) end
  if not meta[2] then call('HSET', meta_key, 'created', int(micros)) end
  call('ZADD', index, micros, workflow)
end
return replies
