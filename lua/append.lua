-- Appends commits to workflows' streams, each whole or not at all, and each by itself.
--
-- KEYS[1…]  for each commit, of its workflow:
--           events    stream
--           meta      hash: cursor, created, largest, retried, snapshot, ids, refs, trimmed, trimmed_ms, fence,
--                     lease_until, expires
--           index     sorted set of the partition's workflows by the time of their last write
--           partition hash of the partition: made, counts, leased, and the replies to retries
--           and if the caller gave it an id
--           commits   hash of the commit ids that callers gave, to their cursors
--           and if it comes with a lease, a snapshot or facts
--           leases    sorted set of the partition's unfinished workflows by the end of their leases
--           snapshot  (with one) hash: cursor, time, data
--           refs      (with facts) set of the hashes of the facts that the workflow refers to; and for each fact, its
--                     bucket, hash, and the bucket's times, sorted set of its facts by when they were last written
-- ARGV[1…]  for each commit: the workflow's id; the commit's id; the id of the call, if the caller gave the commit's, or
--           ''; tried: '' on a first try, on a retry the ID of an entry that the workflow had before the first try, or
--           '1'; expected cursor, or ''; metadata, or ''; lease, '<fencing token> <milliseconds>', or ''; '1' if a
--           snapshot comes with it, or ''; how many facts; '1' if these are stored already, or ''; the caller's time
--           (Unix microseconds); how many entries it has; for each entry, how many events it holds, its header, its payload;
--           the snapshot's data; and for each fact, its hash, and its value, or '' for one that must be there.
-- Reply     array, for each commit: the ID of its last entry, a string; if it was stored before, or has no events, the
--           workflow's cursor after it, an integer; or an error, as a string
-- Errors    READONLY, of all;
--           of a commit: CURSOR_CONFLICT <actual cursor>; LEASE_LOST <owner, spelled>; FACT_MISSING <hash>; DAMAGED
--           <what>; COMMIT_UNSURE, on a retry, when it cannot be known whether the earlier try was stored; LOOK_AGAIN, on
--           a retry, when other commits of this call have used up what may be looked through; NEW_PARTITION; END_REACHED; and
--           WRONGTYPE, as Redis says it
--
-- Every key of a commit is read before it is written, by `try`, so that a foreign value at one of them changes nothing
-- and fails no other commit.

-- What all commits of a call may look through together: entries, and bytes of these. It bounds how long the script takes.
local MOST_LOOKED_THROUGH = 8192
local MOST_BYTES = 8388608
-- From how many bytes on an entry counts as large: the largest one's size tells readers how many they may ask for.
local LARGE = 8192

--@include numbers
--@include clock
--@include lost
--@include partition
--@include index
--@include calls
--@include owner
--@include lease
--@include facts

local call, try, args = redis.call, redis.pcall, ARGV
local micros, ms = now()
local suffix = '-' .. ms

-- The workflow that commits are appended to just now.
local workflow, events, meta_key, index, partition
local meta, cursor, start, score, retried, largest, problem

-- What stands against making the workflow, or against its first commit: an error, or nothing.
local function misfit_start()
  local found = try('XLEN', events)
  if type(found) == 'table' then return found.err end
  if found > 0 then return 'DAMAGED cursor' end
  if meta[2] then return nil end
  local reason = lost_meta(index, workflow)
  if reason then return reason end
  reason, retried = partition_state(partition)
  return reason
end

-- Turns to a workflow: reads what must be known of it, and what it will write.
local function turn_to(id, key, caller)
  workflow, events, meta_key, index, partition = id, KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  meta = try('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest', 'fence', 'expires')
  local top = not meta.err and try('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  problem = meta.err or top.err
  cursor = not problem and whole(meta[1])
  if not cursor then problem = problem or 'DAMAGED cursor' end
  -- What would fail only when much is written already, and the commits of others with it.
  if not (whole(meta[4]) and whole(meta[6])) then problem = problem or 'DAMAGED meta hash' end
  start, largest = cursor, 0
  if problem then return end
  retried, score = meta[3], next_score(top, micros, caller)
  if is_over(meta[6], math.max(micros, tonumber(caller))) then
    problem = 'END_REACHED '
  elseif cursor == 0 then
    problem = misfit_start()
  end
end

-- Writes down how far a workflow has come.
local function turn_away()
  if not workflow or problem or cursor == start then return end
  call('HSET', meta_key, 'cursor', int(cursor))
  if largest >= LARGE and largest > tonumber(meta[4] or 0) then call('HSET', meta_key, 'largest', largest) end
  if not meta[2] then
    call('HSET', meta_key, 'created', int(micros))
    if retried then call('HSET', meta_key, 'retried', '1') end
  end
  touch_index(index, partition, score, workflow)
end

-- Whether an error is that of a replica. Those who send must hear of it: there is another server to write to.
local function is_replicas(failure) return type(failure) == 'string' and string.find(failure, 'READONLY', 1, true) end

-- How far the entries of each workflow were looked through, newest first: the place of each commit id, and the entries'
-- IDs.
local looks = {}
local entries_left, bytes_left = MOST_LOOKED_THROUGH, MOST_BYTES

-- Looks through the next entries of the workflow.
local function look_further(look)
  local count = math.min(look.count, entries_left, math.max(1, math.floor(1048576 / math.max(1, tonumber(meta[4] or 0)))))
  local page = call('XREVRANGE', events, look.upper, '-', 'COUNT', count)
  for _, entry in ipairs(page) do
    local id = entry[2][4]
    look.places[id] = look.places[id] or tonumber(string.match(entry[1], '^%d+'))
    look.ids[entry[1]] = true
    look.upper = '(' .. entry[1]
    bytes_left = bytes_left - #entry[2][1] - #entry[2][2]
  end
  entries_left = entries_left - #page
  look.over = #page < count
  look.count = 256
end

-- The place of a commit among the entries after `floor`, the ID of an entry that the workflow had before the commit's
-- first try; false if it is not there, nil if that cannot be known, with an error that says why.
local function look_back(id, floor)
  local look = looks[events]
  if not look then
    look = {places = {}, ids = {}, upper = '+', count = 16}
    looks[events] = look
  end
  while not (look.places[id] or look.ids[floor] or look.over) do
    if entries_left <= 0 or bytes_left <= 0 then
      -- Sent again, the first look of a call may go on further than that of another workflow lets it here.
      return nil, next(looks) == events and not next(looks, events) and 'COMMIT_UNSURE ' or 'LOOK_AGAIN '
    end
    look_further(look)
  end
  if look.places[id] then return look.places[id] end
  if look.ids[floor] then return false end
  -- What is trimmed may have held it, unless that ended with the very entry that it came after.
  local trim = call('HMGET', meta_key, 'trimmed', 'trimmed_ms')
  if not trim[1] or trim[1] .. '-' .. (trim[2] or '') == floor then return false end
  return nil, 'COMMIT_UNSURE '
end

-- What is known of a commit already: where it ended, or an error; and whether that is what a retry of it was answered.
local function known(id, call_id, tried, expected, commits, first, last)
  if tried == '' and call_id == '' and not retried then return nil end
  if tried ~= '' or retried then
    local said = try('HGET', partition, 'c' .. (call_id == '' and id or call_id))
    if said then return said.err or tonumber(said) or said, true end
  end
  if call_id ~= '' then
    local place = try('HGET', commits, id)
    if place then return place.err or whole(place) or 'DAMAGED commits' end
    if call('HLEN', commits) >= (whole(call('HGET', meta_key, 'ids')) or 0) then return nil end
    -- Some of them are lost: the entries have them, too, those that are not trimmed.
    local found, unknown = look_back(id, '')
    return found or unknown == 'LOOK_AGAIN ' and unknown or unknown and 'DAMAGED commits' or nil
  end
  if tried == '' or first > last then return nil end
  local length = try('XLEN', events)
  if type(length) == 'table' then return length.err end
  if expected == '' then
    local place, unknown = look_back(id, tried)
    return place or unknown or nil
  end
  -- There is only one place where it can be.
  local place = tonumber(expected)
  for at = first, last, 3 do place = place + args[at] end
  local entry = call('XRANGE', events, int(place), int(place))[1]
  if entry and entry[2][4] == id then return place end
  if place <= (whole(call('HGET', meta_key, 'trimmed')) or math.huge) then return 'COMMIT_UNSURE ' end
end

-- Adds a commit's entries; the ID of the last one, or nil and an error.
local function add(id, call_id, metadata, commits, first, last)
  local entry_id
  for at = first, last, 3 do
    local after = cursor + args[at]
    entry_id = (after < 1e14 and after or int(after)) .. suffix
    local added
    if metadata == '' then
      added = try('XADD', events, entry_id, args[at + 1], args[at + 2], 'i', id)
    else
      added = try('XADD', events, entry_id, args[at + 1], args[at + 2], 'i', id, 'm', metadata)
    end
    if added.err then return nil, added.err end
    cursor = after
    largest = math.max(largest, #args[at + 1] + #args[at + 2])
  end
  if call_id ~= '' and entry_id then
    call('HSET', commits, id, int(cursor))
    call('HINCRBY', meta_key, 'ids', 1)
  end
  return entry_id or cursor
end

-- What a commit comes with besides its entries, found by where its arguments and its keys start.
local function extras(at, key)
  local snapshots, count, entries = args[at + 7] == '1' and 1 or 0, tonumber(args[at + 8]), tonumber(args[at + 11])
  local elsewhere = args[at + 9] ~= ''
  local data = at + 12 + 3 * entries
  local refs = key + 1 + snapshots
  return {
    leases = KEYS[key], snapshot = snapshots == 1 and KEYS[key + 1], data = args[data], refs = refs,
    facts = count, elsewhere = elsewhere, time = tonumber(args[at + 10]), first_fact = data + snapshots,
    next_at = data + snapshots + 2 * count, next_key = refs + (count == 0 and 0 or elsewhere and 1 or 1 + 2 * count),
  }
end

-- What stands against what a commit comes with: an error, or nothing.
local function misfit(with)
  local found = with.facts > 0 and try('XLEN', events)
  if type(found) == 'table' then return found.err end
  found = with.snapshot and try('HLEN', with.snapshot)
  if type(found) == 'table' then return found.err end
  return unkeepable(with.first_fact, with.refs, with.facts, with.elsewhere, meta_key)
end

-- Keeps what a commit came with.
local function take_along(with, lease)
  keep(with.first_fact, with.refs, with.facts, with.elsewhere, math.max(micros, with.time), meta_key)
  if with.snapshot then
    call('HSET', with.snapshot, 'cursor', int(cursor), 'time', int(ms), 'data', with.data)
    call('HSET', meta_key, 'snapshot', int(cursor))
  end
  renew(lease, ms, workflow, meta_key, with.leases, partition)
end

local replies, at, key = {}, 1, 1
-- Workflows of which a commit is to be asked for again: nothing of theirs may overtake it.
local waiting = {}
while at < #ARGV do
  if KEYS[key] ~= events then
    turn_away()
    turn_to(args[at], key, args[at + 10])
    if is_replicas(problem) then return redis.error_reply(problem) end
  end
  local id, call_id, tried, expected, lease = args[at + 1], args[at + 2], args[at + 3], args[at + 4], args[at + 6]
  local first, last = at + 12, at + 11 + 3 * args[at + 11]
  local commits = call_id ~= '' and KEYS[key + 4] or nil
  local next_key = key + (commits and 5 or 4)
  -- Most come with nothing.
  local with = (lease ~= '' or args[at + 7] ~= '' or args[at + 8] ~= '0') and extras(at, next_key)
  -- (Where nothing is appended, nothing need be made.)
  local reply = not (first > last and problem == 'NEW_PARTITION ') and problem or waiting[events]
  local answered = reply and true
  if not reply then reply, answered = known(id, call_id, tried, expected, commits, first, last) end
  if reply == 'LOOK_AGAIN ' then waiting[events] = reply end
  local stored = type(reply) == 'number'
  if not reply then
    if with then reply = refused(lease, meta[5], meta_key, with.leases) end
    if not reply and expected ~= '' and cursor ~= tonumber(expected) then
      reply = 'CURSOR_CONFLICT ' .. int(cursor)
    end
    if not reply and with then reply = misfit(with) end
    if not reply then
      local failure
      reply, failure = add(id, call_id, args[at + 5], commits, first, last)
      if is_replicas(failure) then return redis.error_reply(failure) end
      if with and reply then take_along(with, lease) end
      stored, reply = reply and true or false, reply or failure
    end
  end
  -- What was found is remembered, too: another retry may arrive when it can be found no more.
  if tried ~= '' and first <= last and not answered and reply ~= 'LOOK_AGAIN ' then
    local said = type(reply) == 'string' and stored and cursor or reply
    remember(partition, call_id == '' and id or call_id, said, meta_key, meta[2] or stored)
    retried = '1'
  end
  replies[#replies + 1] = reply
  at, key = with and with.next_at or last + 1, with and with.next_key or next_key
end
turn_away()
return replies
