-- Appends commits to workflows' streams, each whole or not at all, and each by itself.
--
-- KEYS[1…]  for each commit, of its workflow:
--           events   stream
--           meta     hash: cursor, created, largest, retried, trimmed, trimmed_ms
--           commits  hash of the commit ids that must be known for good, to their cursors
--           index    sorted set of the partition's workflows by the time of their last write
-- ARGV[1…]  for each commit: the workflow's id; the commit's id; how it is asked for; expected cursor, or ''; metadata,
--           or ''; how many entries it has; and for each of these, how many events it holds, its header, its payload.
--           It is asked for as '' (a first try, with an id of the store's own), 'given' (an id that the caller gave), or
--           the milliseconds since the first try (a retry, with an id of the store's own)
-- Reply     array, for each commit: integer, the cursor after it; or an error, as a string
-- Errors    of a commit: CURSOR_CONFLICT <actual cursor>; DAMAGED <what>; COMMIT_UNSURE, on a retry, when entries among
--           which the earlier try may have been are trimmed; and WRONGTYPE, as Redis says it
--
-- Every key of a commit is read before it is written, by `try`, so that a foreign value at one of them changes nothing
-- and fails no other commit. A retry is remembered in `commits`, and `retried` makes first tries look there: a first
-- try that the network delivers after its own retry is known, and not stored again.

-- How far beyond the first try a retry looks back, in milliseconds: the clock may have been set meanwhile, or a failover
-- may have led to a server with another clock.
local MARGIN = 60000
-- From how many bytes on an entry counts as large: the largest one's size tells readers how many they may ask for.
local LARGE = 8192

local call, try, args = redis.call, redis.pcall, ARGV
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local ms = math.floor(micros / 1000)
local suffix = '-' .. ms

-- A number as Redis takes it; written out by itself, Lua keeps 14 digits of one, and passed as an argument, all.
local function int(number) return string.format('%.0f', number) end

-- A count as it is kept: nothing is 0, and what is no count is nil.
local function whole(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end

-- The workflow that commits are appended to just now.
local workflow, events, meta_key, commits, index
local meta, cursor, start, retried, largest, problem

-- Turns to a workflow: reads what must be known of it, and what it will write.
local function turn_to(id, key)
  workflow, events, meta_key, commits, index = id, KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  meta = try('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest')
  local indexed = not meta.err and try('ZSCORE', index, id)
  problem = meta.err or type(indexed) == 'table' and indexed.err
  cursor = not problem and whole(meta[1])
  if not cursor then problem = problem or 'DAMAGED cursor' end
  start, retried, largest = cursor, meta[3], 0
end

-- Writes down how far a workflow has come.
local function turn_away()
  if not workflow or problem or cursor == start then return end
  call('HSET', meta_key, 'cursor', int(cursor))
  if largest >= LARGE and largest > tonumber(meta[4] or 0) then call('HSET', meta_key, 'largest', largest) end
  if not meta[2] then call('HSET', meta_key, 'created', int(micros)) end
  call('ZADD', index, int(micros), workflow)
end

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

-- What is known of a commit already: where it ended, or an error.
local function known(id, asked, expected, first, last)
  if asked == '' and not retried then return nil end
  local place = try('HGET', commits, id)
  if place then return place.err or whole(place) or 'DAMAGED commits' end
  if asked == '' or asked == 'given' or first > last then return nil end
  local length = try('XLEN', events)
  if type(length) == 'table' then return length.err end
  local added = 0
  for at = first, last, 3 do added = added + args[at] end
  local found, unsure = earlier_try(id, asked, expected, added)
  return found or unsure and 'COMMIT_UNSURE' or nil
end

-- Adds a commit's entries; the cursor after them, or an error.
local function add(id, asked, metadata, first, last)
  for at = first, last, 3 do
    local after = cursor + args[at]
    local entry_id = (after < 1e14 and after or int(after)) .. suffix
    local added
    if metadata == '' then
      added = try('XADD', events, entry_id, args[at + 1], args[at + 2], 'i', id)
    else
      added = try('XADD', events, entry_id, args[at + 1], args[at + 2], 'i', id, 'm', metadata)
    end
    if added.err then return added.err end
    cursor = after
    largest = math.max(largest, #args[at + 1] + #args[at + 2])
  end
  if asked ~= '' and first <= last then
    call('HSET', commits, id, int(cursor))
    if asked ~= 'given' and not retried then
      retried = '1'
      call('HSET', meta_key, 'retried', retried)
    end
  end
  return cursor
end

local replies, at, key = {}, 1, 1
while at < #ARGV do
  if KEYS[key] ~= events then
    turn_away()
    turn_to(args[at], key)
  end
  local id, asked, expected = args[at + 1], args[at + 2], args[at + 3]
  local first = at + 6
  local last = first + 3 * args[at + 5] - 1
  local reply = problem or known(id, asked, expected, first, last)
  if not reply and expected ~= '' and cursor ~= tonumber(expected) then
    reply = 'CURSOR_CONFLICT ' .. int(cursor)
  end
  replies[#replies + 1] = reply or add(id, asked, args[at + 4], first, last)
  at, key = last + 1, key + 4
end
turn_away()
return replies
