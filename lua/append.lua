-- Append commits to the streams of workflows. Each commit is stored whole or not at all, and by itself.
--
-- KEYS[1…]  for each commit, of its workflow:
--           events    stream
--           meta      hash: cursor, created, largest, retried, snapshot, ids, refs, trimmed, trimmed_ms, fence,
--                     lease_until, expires
--           index     sorted set of the partition's workflows by the time of their last write
--           partition hash of the partition: made, counts, leased, and the replies to retries
--           and if the caller gave the commit an id
--           commits   hash of the commit ids that callers gave, to their cursors
--           and if the commit has a lease, a snapshot or facts
--           leases    sorted set of the partition's unfinished workflows by the end of their leases
--           snapshot  (with a snapshot) hash: cursor, time, data
--           refs      (with facts) set of the hashes of the facts that the workflow refers to; and for each fact that
--                     is not stored already, its bucket, hash, and the bucket's times, sorted set of its facts by the
--                     time when they were last written
-- ARGV[1…]  for each commit:
--           workflow_id
--           commit_id
--           call_id    id of the call, if the caller gave the commit's id; else ''
--           tried      '' on a first try; on a retry the ID of an entry that the workflow had before the first try,
--                      or '1'
--           expected   expected cursor, or ''
--           metadata   or ''
--           lease      '<fencing token> <milliseconds>', or ''
--           snapshot   '1' if the commit has a snapshot, or ''
--           facts      how many facts it has
--           ahead      '1' if these are stored already, or ''
--           time_us    the caller's time (Unix microseconds)
--           entries    how many entries it has
--           and for each entry, how many events it holds, its header, its payload; the snapshot's data; and for each
--           fact, its hash, and its value, or '' for a fact that must be stored already
-- Reply     array, for each commit: the ID of its last entry, a string; or the workflow's cursor after it, an
--           integer, if it was stored before or has no events; or an error, as a string
-- Errors    READONLY, of all;
--           of a commit: CURSOR_CONFLICT <actual cursor>; LEASE_LOST <owner, percent-encoded>; FACT_MISSING <hash>;
--           DAMAGED <what>; COMMIT_UNSURE, on a retry, if it cannot be known whether the earlier try was stored;
--           LOOK_AGAIN, on a retry, if the scans for other commits of this call have used up their bound;
--           NEW_PARTITION; END_REACHED; and WRONGTYPE, in the words of Redis
--
-- Every key of a commit is read before it is written, by `try`. So a foreign value at one of them changes nothing,
-- and only its own commit fails.

-- How many entries, and bytes of entries, the scans of one call read together. The bound limits the script's time.
local MOST_SCANNED = 8192
local MOST_SCANNED_BYTES = 8388608
-- From how many bytes on an entry counts as large. The size of the largest one bounds the pages of readers.
local LARGE = 8192

--@include numbers
--@include clock
--@include meta
--@include partition
--@include index
--@include calls
--@include owner
--@include lease
--@include facts

local call, try, KEYS, ARGV = redis.call, redis.pcall, KEYS, ARGV
local micros, ms = now()
local suffix = '-' .. ms

-- The workflow to which commits are appended now.
local workflow, events, meta_key, index, partition
local meta, cursor, start, score, retried, largest, problem

-- Return the error that keeps the workflow from being created, or from its first commit; or nothing.
local function start_error()
  local length = try('XLEN', events)
  if type(length) == 'table' then return length.err end
  if length > 0 then return 'DAMAGED cursor' end
  if meta[2] then return nil end
  local reason = meta_error(index, workflow)
  if reason then return reason end
  reason, retried = partition_error(partition)
  return reason
end

-- Read the next workflow, and every key that all commits to it write.
local function read_workflow(workflow_id, key, time_us)
  workflow, events, meta_key, index, partition = workflow_id, unpack(KEYS, key, key + 3)
  meta = try('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest', 'fence', 'expires')
  local top = not meta.err and try('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  problem = meta.err or top.err
  cursor = not problem and as_count(meta[1])
  if not cursor then problem = problem or 'DAMAGED cursor' end
  -- These would fail only after much is written, and other commits with it.
  if not (as_count(meta[4]) and as_count(meta[6])) then problem = problem or 'DAMAGED meta hash' end
  start, largest = cursor, 0
  if problem then return end
  retried, score = meta[3], next_score(top, micros, time_us)
  if is_over(meta[6], math.max(micros, tonumber(time_us))) then
    problem = 'END_REACHED '
  elseif cursor == 0 then
    problem = start_error()
  end
end

-- Save the cursor of the workflow, and the time of this write.
local function save_cursor()
  if not workflow or problem or cursor == start then return end
  call('HSET', meta_key, 'cursor', int(cursor))
  if largest >= LARGE and largest > tonumber(meta[4] or 0) then call('HSET', meta_key, 'largest', largest) end
  if not meta[2] then
    call('HSET', meta_key, 'created', int(micros))
    if retried then call('HSET', meta_key, 'retried', '1') end
  end
  touch_index(index, partition, score, workflow)
end

-- Whether an error comes from a replica. Then the whole call fails: the sender must look for the primary.
local function is_from_replica(failure)
  return type(failure) == 'string' and string.find(failure, 'READONLY', 1, true)
end

-- The scans through the entries of each workflow, newest first: the cursors of the commits by id, and the entries'
-- IDs.
local scans = {}
local entries_left, bytes_left = MOST_SCANNED, MOST_SCANNED_BYTES

-- Scan the next entries of the workflow.
local function scan_more(scan)
  local fitting = math.floor(1048576 / math.max(1, tonumber(meta[4] or 0)))
  local count = math.min(scan.count, entries_left, math.max(1, fitting))
  local page = call('XREVRANGE', events, scan.upper, '-', 'COUNT', count)
  for _, entry in ipairs(page) do
    local commit_id = entry[2][4]
    scan.cursors[commit_id] = scan.cursors[commit_id] or tonumber(string.match(entry[1], '^%d+'))
    scan.ids[entry[1]] = true
    scan.upper = '(' .. entry[1]
    bytes_left = bytes_left - #entry[2][1] - #entry[2][2]
  end
  entries_left = entries_left - #page
  scan.is_done = #page < count
  scan.count = 256
end

-- Return the cursor of a commit among the entries after `floor`, the ID of an entry that the workflow had before the
-- commit's first try. Return false if it is not among them; nil and an error if that cannot be known.
local function find_commit(commit_id, floor)
  local scan = scans[events]
  if not scan then
    scan = {cursors = {}, ids = {}, upper = '+', count = 16}
    scans[events] = scan
  end
  while not (scan.cursors[commit_id] or scan.ids[floor] or scan.is_done) do
    if entries_left <= 0 or bytes_left <= 0 then
      -- The scans of other workflows have used up a part of the bound. If it is sent again, this one may come first.
      return nil, next(scans) == events and not next(scans, events) and 'COMMIT_UNSURE ' or 'LOOK_AGAIN '
    end
    scan_more(scan)
  end
  if scan.cursors[commit_id] then return scan.cursors[commit_id] end
  if scan.ids[floor] then return false end
  -- The trimmed entries may have held the commit, unless the last one of them is the very entry before its first try.
  local trim = call('HMGET', meta_key, 'trimmed', 'trimmed_ms')
  if not trim[1] or trim[1] .. '-' .. (trim[2] or '') == floor then return false end
  return nil, 'COMMIT_UNSURE '
end

-- Return the cursor of a commit that was stored before, or an error; and whether a retry of it was answered with that.
local function earlier_reply(commit_id, call_id, tried, expected, commits, first, last)
  if tried == '' and call_id == '' and not retried then return nil end
  if tried ~= '' or retried then
    local reply = try('HGET', partition, 'c' .. (call_id == '' and commit_id or call_id))
    if reply then return reply.err or tonumber(reply) or reply, true end
  end
  if call_id ~= '' then
    local stored = try('HGET', commits, commit_id)
    if stored then return stored.err or as_count(stored) or 'DAMAGED commits' end
    if call('HLEN', commits) >= (as_count(call('HGET', meta_key, 'ids')) or 0) then return nil end
    -- Some ids are lost. The entries that are not trimmed have them, too.
    local found, failure = find_commit(commit_id, '')
    return found or failure == 'LOOK_AGAIN ' and failure or failure and 'DAMAGED commits' or nil
  end
  if tried == '' or first > last then return nil end
  local length = try('XLEN', events)
  if type(length) == 'table' then return length.err end
  if expected == '' then
    local found, failure = find_commit(commit_id, tried)
    return found or failure or nil
  end
  -- With an expected cursor, the commit can be in one place only.
  local place = tonumber(expected)
  for at = first, last, 3 do
    local count = ARGV[at]
    place = place + count
  end
  local entry = call('XRANGE', events, int(place), int(place))[1]
  if entry and entry[2][4] == commit_id then return place end
  if place <= (as_count(call('HGET', meta_key, 'trimmed')) or math.huge) then return 'COMMIT_UNSURE ' end
end

-- Add a commit's entries. Return the ID of the last one, or nil and an error.
local function add_entries(commit_id, call_id, metadata, commits, first, last)
  local entry_id
  for at = first, last, 3 do
    local count, header, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local after = cursor + count
    entry_id = (after < 1e14 and after or int(after)) .. suffix
    local added
    if metadata == '' then
      added = try('XADD', events, entry_id, header, payload, 'i', commit_id)
    else
      added = try('XADD', events, entry_id, header, payload, 'i', commit_id, 'm', metadata)
    end
    if added.err then return nil, added.err end
    cursor = after
    largest = math.max(largest, #header + #payload)
  end
  if call_id ~= '' and entry_id then
    call('HSET', commits, commit_id, int(cursor))
    call('HINCRBY', meta_key, 'ids', 1)
  end
  return entry_id or cursor
end

-- Return what a commit has besides its entries. `at` and `key` are the places of the first argument and of the first
-- key of it.
local function extras_of(at, key, snapshot, facts, ahead, time_us)
  local leases, snapshot_key, data = KEYS[key], KEYS[key + 1], ARGV[at]
  local snapshots, count = snapshot == '' and 0 or 1, tonumber(facts)
  local refs = key + 1 + snapshots
  return {
    leases = leases, snapshot = snapshots == 1 and snapshot_key, data = data, refs = refs, facts = count,
    ahead = ahead ~= '', time_us = tonumber(time_us), first_fact = at + snapshots,
    next_at = at + snapshots + 2 * count,
    next_key = refs + (count == 0 and 0 or ahead ~= '' and 1 or 1 + 2 * count),
  }
end

-- Return the error that keeps the extras from being stored, or nothing.
local function extras_error(extras)
  local found = extras.facts > 0 and try('XLEN', events)
  if type(found) == 'table' then return found.err end
  found = extras.snapshot and try('HLEN', extras.snapshot)
  if type(found) == 'table' then return found.err end
  return facts_error(extras.first_fact, extras.refs, extras.facts, extras.ahead, meta_key)
end

local function store_extras(extras, lease)
  local fact_us = math.max(micros, extras.time_us)
  store_facts(extras.first_fact, extras.refs, extras.facts, extras.ahead, fact_us, meta_key)
  if extras.snapshot then
    call('HSET', extras.snapshot, 'cursor', int(cursor), 'time', int(ms), 'data', extras.data)
    call('HSET', meta_key, 'snapshot', int(cursor))
  end
  extend_used_lease(lease, ms, workflow, meta_key, extras.leases, partition)
end

local replies, at, key = {}, 1, 1
-- Workflows with a commit that is to be sent again: no later commit may overtake it.
local waiting = {}
while at < #ARGV do
  local workflow_id, commit_id, call_id, tried, expected, metadata, lease, snapshot, facts, ahead, time_us, entries =
    unpack(ARGV, at, at + 11)
  local stream, commits = KEYS[key], call_id ~= '' and KEYS[key + 4] or nil
  if stream ~= events then
    save_cursor()
    read_workflow(workflow_id, key, time_us)
    if is_from_replica(problem) then return redis.error_reply(problem) end
  end
  local first, last = at + 12, at + 11 + 3 * entries
  local next_key = key + (commits and 5 or 4)
  -- Most commits have no extras.
  local extras = (lease ~= '' or snapshot ~= '' or facts ~= '0')
    and extras_of(last + 1, next_key, snapshot, facts, ahead, time_us)
  -- A commit without events creates nothing.
  local reply = not (first > last and problem == 'NEW_PARTITION ') and problem or waiting[events]
  local was_answered = reply and true
  if not reply then
    reply, was_answered = earlier_reply(commit_id, call_id, tried, expected, commits, first, last)
  end
  if reply == 'LOOK_AGAIN ' then waiting[events] = reply end
  local is_stored = type(reply) == 'number'
  if not reply then
    if extras then reply = lease_error(lease, meta[5], meta_key, extras.leases) end
    if not reply and expected ~= '' and cursor ~= tonumber(expected) then
      reply = 'CURSOR_CONFLICT ' .. int(cursor)
    end
    if not reply and extras then reply = extras_error(extras) end
    if not reply then
      local failure
      reply, failure = add_entries(commit_id, call_id, metadata, commits, first, last)
      if is_from_replica(failure) then return redis.error_reply(failure) end
      if extras and reply then store_extras(extras, lease) end
      is_stored, reply = reply and true or false, reply or failure
    end
  end
  -- A commit that was found is kept, too: another retry may arrive when it can no longer be found.
  if tried ~= '' and first <= last and not was_answered and reply ~= 'LOOK_AGAIN ' then
    local kept = type(reply) == 'string' and is_stored and cursor or reply
    keep_reply(partition, call_id == '' and commit_id or call_id, kept, meta_key, meta[2] or is_stored)
    retried = '1'
  end
  replies[#replies + 1] = reply
  at, key = extras and extras.next_at or last + 1, extras and extras.next_key or next_key
end
save_cursor()
return replies
