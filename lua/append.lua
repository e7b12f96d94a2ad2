-- Appends commits to workflows' streams, each whole or not at all, and each by itself.
--
-- KEYS[1…]  for each commit, of its workflow:
--           events   stream
--           meta     hash: cursor, created, largest, retried, trimmed, trimmed_ms, fence, lease_until, expires
--           commits  hash of the commit ids that must be known for good, to their cursors
--           index    sorted set of the partition's workflows by the time of their last write
--           and if it comes with a lease, a snapshot or facts
--           leases   sorted set of the partition's unfinished workflows by the end of their leases
--           snapshot (with one) hash: cursor, time, data
--           refs     (with facts) set of the hashes of the facts that the workflow refers to; and for each fact, its
--                    bucket, hash, and the bucket's times, sorted set of its facts by when they were last written
-- ARGV[1…]  for each commit: the workflow's id; the commit's id; how it is asked for; expected cursor, or ''; metadata,
--           or ''; lease, '<fencing token> <milliseconds>', or ''; how many snapshots it comes with, 0 or 1; how many
--           facts, with ' elsewhere' behind that if their keys are not given; how many entries it has; for each entry, how many events it holds, its header, its payload; the
--           snapshot's data; and for each fact, its hash, and its value, or '' for one that must be there.
--           It is asked for as '' (a first try, with an id of the store's own), 'given' (an id that the caller gave), or
--           the milliseconds since the first try (a retry, with an id of the store's own)
-- Reply     array, for each commit: integer, the cursor after it; or an error, as a string
-- Errors    READONLY, of all;
--           of a commit: CURSOR_CONFLICT <actual cursor>; LEASE_LOST <owner>; FACT_MISSING <hash>; DAMAGED <what>;
--           COMMIT_UNSURE, on a retry, when entries among which the earlier try may have been are trimmed; and
--           WRONGTYPE, as Redis says it
--
-- Every key of a commit is read before it is written, by `try`, so that a foreign value at one of them changes nothing
-- and fails no other commit. A retry is remembered in `commits`, and `retried` makes first tries look there: a first
-- try that the network delivers after its own retry is known, and not stored again.

-- How far beyond the first try a retry looks back, in milliseconds: the clock may have been set meanwhile, or a failover
-- may have led to a server with another clock.
local MARGIN = 60000
-- From how many bytes on an entry counts as large: the largest one's size tells readers how many they may ask for.
local LARGE = 8192

--@include clock
--@include numbers
--@include lease
--@include facts

local call, try, args = redis.call, redis.pcall, ARGV
local micros, ms = now()
local suffix = '-' .. ms

-- The workflow that commits are appended to just now.
local workflow, events, meta_key, commits, index
local meta, cursor, start, retried, largest, problem, expires

-- Turns to a workflow: reads what must be known of it, and what it will write.
local function turn_to(id, key)
  workflow, events, meta_key, commits, index = id, KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  meta = try('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest', 'fence', 'expires')
  local indexed = not meta.err and try('ZSCORE', index, id)
  problem = meta.err or type(indexed) == 'table' and indexed.err
  cursor = not problem and whole(meta[1])
  if not cursor then problem = problem or 'DAMAGED cursor' end
  -- What would fail only when much is written already, and the commits of others with it.
  if not (whole(meta[4]) and whole(meta[6])) then problem = problem or 'DAMAGED meta hash' end
  start, retried, largest, expires = cursor, meta[3], 0, meta[6]
end

-- Writes down how far a workflow has come.
local function turn_away()
  if not workflow or problem or cursor == start then return end
  call('HSET', meta_key, 'cursor', int(cursor))
  if largest >= LARGE and largest > tonumber(meta[4] or 0) then call('HSET', meta_key, 'largest', largest) end
  if not meta[2] then call('HSET', meta_key, 'created', int(micros)) end
  call('ZADD', index, int(micros), workflow)
  if expires then
    call('PEXPIREAT', events, expires)
    call('PEXPIREAT', commits, expires)
  end
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
    return false, place <= (whole(trim[1]) or math.huge)
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
  return false, (whole(trim[2]) or math.huge) >= first_try - 1000
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

-- What a commit comes with besides its entries, found by where its arguments and its keys start.
local function extras(at, key)
  local snapshots, entries = tonumber(args[at + 6]), tonumber(args[at + 8])
  local count, elsewhere = fact_count(args[at + 7])
  local data = at + 9 + 3 * entries
  local refs = key + 5 + snapshots
  return {
    leases = KEYS[key + 4], snapshot = snapshots == 1 and KEYS[key + 5], data = args[data], refs = refs,
    facts = count, elsewhere = elsewhere, first_fact = data + snapshots, next_at = data + snapshots + 2 * count,
    next_key = refs + (count == 0 and 0 or elsewhere and 1 or 1 + 2 * count),
  }
end

-- What stands against what a commit comes with: an error, or nothing.
local function misfit(with)
  local found = with.facts > 0 and try('XLEN', events)
  if type(found) == 'table' then return found.err end
  found = with.snapshot and try('HLEN', with.snapshot)
  if type(found) == 'table' then return found.err end
  return unkeepable(with.first_fact, with.refs, with.facts, with.elsewhere)
end

-- Keeps what a commit came with.
local function take_along(with, lease)
  keep(with.first_fact, with.refs, with.facts, with.elsewhere, micros)
  if with.snapshot then
    call('HSET', with.snapshot, 'cursor', int(cursor), 'time', int(ms), 'data', with.data)
  end
  renew(lease, ms, workflow, meta_key, with.leases)
  if expires and with.snapshot then call('PEXPIREAT', with.snapshot, expires) end
  if expires and with.facts > 0 then call('PEXPIREAT', KEYS[with.refs], expires) end
end

local replies, at, key = {}, 1, 1
while at < #ARGV do
  if KEYS[key] ~= events then
    turn_away()
    turn_to(args[at], key)
  end
  local id, asked, expected, lease = args[at + 1], args[at + 2], args[at + 3], args[at + 5]
  local first, last = at + 9, at + 8 + 3 * args[at + 8]
  -- Most come with nothing.
  local with = (lease ~= '' or args[at + 6] ~= '0' or args[at + 7] ~= '0') and extras(at, key)
  local reply = problem or known(id, asked, expected, first, last)
  if not reply and with then reply = refused(lease, meta[5], meta_key, with.leases) end
  if not reply and expected ~= '' and cursor ~= tonumber(expected) then
    reply = 'CURSOR_CONFLICT ' .. int(cursor)
  end
  if not reply and with then reply = misfit(with) end
  if not reply then
    reply = add(id, asked, args[at + 4], first, last)
    -- A replica, which those who send must hear of: there is another server to write to.
    if type(reply) == 'string' and string.find(reply, 'READONLY', 1, true) then return redis.error_reply(reply) end
    if with and type(reply) == 'number' then take_along(with, lease) end
  end
  replies[#replies + 1] = reply
  at, key = with and with.next_at or last + 1, with and with.next_key or key + 4
end
turn_away()
return replies
