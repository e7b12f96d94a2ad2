-- Append a group of commits, each to another workflow. All of them are stored, or none.
--
-- KEYS[1…]  with a tracking record, first
--           tracking  hash: for each name, '<position> <id of the call that stored it>'
--           partition hash of the first partition: made
--           with a condition, then
--           tagged    index of all tags, see lua/find_where.lua
--           partition hash of the partition: position
--           then for each commit, the keys that lua/append.lua takes for it: events, meta, index, partition, feed,
--           commits, leases, queues, queue, snapshot, refs, bucket, times, inbox, expiring, attribute, children, tags,
--           tagged
-- ARGV[1]   tried      '' on a first try, and '1' on a retry
-- ARGV[2]   options    letters; for each of them arguments follow, in the same order:
--                      t  a tracking record: its name, its position, and the id of the call
--                      w  a condition: the position after which no event may match the query; the position from which
--                         to search for commits; how many items the query has; and for each item the number of its
--                         tags, and the tags
-- ARGV[3…]  those; then for each commit, the arguments that lua/append.lua takes for it on a retry. The third one
--           counts on a retry only.
-- Reply     array, for each commit: the ID of its last entry, a string; or the workflow's cursor after it, an
--           integer, if it was stored before or has no events; with P as in lua/append.lua
-- Errors    GROUP_REJECTED <place of a commit, from 0> <its error, percent-encoded> …, for each commit with an error,
--           and at the place after the last commit for the tracking record: TRACKING_CONFLICT <stored position>,
--           DAMAGED tracking, NEW_PARTITION or WRONGTYPE; and for a commit:
--           COMMIT_STORED <cursor>, if it was stored before, by its commit id, and others of the group were not; or as
--           in lua/append.lua: CURSOR_CONFLICT, LEASE_LOST, FACT_MISSING, WORKFLOW_COMPLETED, OTHER_KEY, DAMAGED,
--           MESSAGE_GONE, CANCEL_REQUESTED, ALREADY_STARTED, TOO_MANY_ATTRIBUTES, REFS_UNKNOWN, COMMIT_UNSURE (in
--           place of LOOK_AGAIN, too), NEW_PARTITION, END_REACHED and WRONGTYPE;
--           CONDITION_FAILED <position>, if an event of the commit at that position matches; SEARCH_ON <position>, if
--           none matches in the commits up to that position, and there may be others: call again from there on;
--           NOPERM, READONLY, OOM and others by which the server rejects every write
--
-- Nothing is written before every key of every commit is read, and before the server has accepted a write of each
-- kind that changes nothing. So no commit is rejected once the first one is stored.

--@include append_common

local tried, options = ARGV[1], ARGV[2]
local is_retry = tried ~= ''
local NONE = {}
-- Numbers up to here, and some more, are exact. No position of a feed comes near.
local MOST_POSITIONS = 9000000000000000
-- The errors after which the caller settles their cause, and sends the group again.
local SETTLED = {NEW_PARTITION = true, END_REACHED = true, OTHER_KEY = true}
local rare = make_rare_functions(now_us, now_ms)

-- The highest score that this call gives in each index.
local scores = {}

-- Return a score for a commit, above those of the group's earlier commits in the same index.
local function score_above(index, score)
  local above = scores[index]
  scores[index] = above and math.max(tonumber(score), above + 1) or tonumber(score)
  return string.format('%.0f', scores[index])
end

-- Return the cursor or position of the highest ID that a stream ever had, 0 if there is no stream; or nil and an
-- error.
local function highest(stream)
  local about = try('XINFO', 'STREAM', stream)
  if about.err then
    if string.find(tostring(about.err), 'no such key', 1, true) then return 0 end
    return nil, about.err
  end
  for place = 1, #about, 2 do
    local name, value = about[place], about[place + 1]
    if name == 'last-generated-id' then return tonumber(string.match(value, '^%d+')) end
  end
end

-- Return the error by which a stream would reject an entry of the commit, or nothing.
local function stream_error(commit)
  local w = commit.w
  local position = try('HGET', w.partition, 'position')
  if type(position) == 'table' then return position.err end
  local top, failure = highest(w.events)
  if not top or top > commit.cursor then return failure or 'DAMAGED cursor' end
  if not commit.feed_count then return nil end
  top, failure = highest(commit.feed)
  -- One that may not be counted on exactly is damage.
  if not string.find(position or '0', '^%d+$') or tonumber(position or 0) > MOST_POSITIONS then
    return 'DAMAGED position'
  end
  if not top or top > tonumber(position or 0) then return failure or 'DAMAGED position' end
end

-- Return the error that rejects a commit that was not stored before, or nothing.
local function commit_error(commit)
  local failure = commit.extras and rare.lease_error(commit.extras.lease)
  if not failure and commit.expected and commit.cursor ~= tonumber(commit.expected) then
    failure = 'CURSOR_CONFLICT ' .. string.format('%.0f', commit.cursor)
  end
  failure = failure or commit.extras and rare.extras_error(commit.w, commit.extras, commit.cursor)
    or commit.tags_key and rare.tags_error(commit.tags_key, commit.tagged)
  return failure or commit.has_events and stream_error(commit) or nil
end

-- Read the tracking record of the group: its key, its name, its value, the error that rejects it, and whether an
-- earlier try has stored it.
local function read_tracking(first_key, first)
  local key, partition = unpack(KEYS, first_key, first_key + 1)
  local name, position, id = unpack(ARGV, first, first + 2)
  local record = {key = key, name = name, value = position .. ' ' .. id}
  local stored = try('HGET', key, name)
  local made = try('HGET', partition, 'made')
  if type(stored) == 'table' or type(made) == 'table' then
    record.failure = stored.err or made.err
  elseif not made then
    record.failure = 'NEW_PARTITION '
  elseif stored then
    local last = string.match(stored, '^(%d+) .')
    record.is_stored = is_retry and stored == record.value
    if not last or #last > 16 then
      record.failure = 'DAMAGED tracking'
    elseif tonumber(last) >= tonumber(position) and not record.is_stored then
      record.failure = 'TRACKING_CONFLICT ' .. last
    end
  end
  return record
end

-- Return the error by which the server rejects a command that writes the tracking record, or nothing. It changes
-- nothing.
local function tracking_error(record)
  local result = try('HDEL', record.key, '')
  return type(result) == 'table' and result.err or nil
end

-- Return the error by which the server rejects a command that writes, or nothing. The commands change nothing. The
-- first entry of the group shows the same of XADD, before anything else is stored.
local function write_error(w)
  local workflows = call('HGET', w.partition, 'workflows')
  local results = {
    try('HDEL', w.partition, ''), try('ZADD', w.index, 'XX', 0, ''), try('ZREM', w.index, ''),
  }
  if workflows then
    results[4] = try('HINCRBY', w.partition, 'workflows', 0)
    results[5] = try('HSET', w.partition, 'workflows', workflows)
    results[6] = try('HSETNX', w.partition, 'workflows', workflows)
  end
  for _, result in ipairs(results) do
    if type(result) == 'table' then return result.err end
  end
end

-- Whether an error is one of a commit, and not one by which the server rejects any write.
local function is_of_commit(failure)
  return string.find(failure, '^%u+_%u+ ') or string.find(failure, '^DAMAGED ') or string.find(failure, '^WRONGTYPE ')
end

-- Return the reply by which the server rejects every write. Only a missing permission has no code of its kind.
local function rejected_by_server(failure)
  local text = tostring(failure)
  -- Redis 6.2 begins with the place in the script.
  text = string.match(text, '^@user_script: ?%d+: %-(%u+ [^\r\n]*)') or text
  local has_code = string.find(text, '^%u+ ') and not string.find(text, '^ERR ')
  return redis.error_reply(has_code and text or 'NOPERM ' .. text)
end

--@include matching

-- Read the condition of the group: its keys, its positions, and its query. Return it, and the place after it.
local function read_condition(first_key, first)
  local tagged, partition = unpack(KEYS, first_key, first_key + 1)
  local after, from = unpack(ARGV, first, first + 1)
  local items, at = items_of(first + 2)
  return {tagged = tagged, partition = partition, after = tonumber(after), from = tonumber(from), items = items}, at
end

-- Return the error by which the condition rejects the group, or nothing.
local function condition_error(condition)
  local size, searched = try('ZCARD', condition.tagged), nil
  if type(size) == 'table' then return size.err end
  for _, item in ipairs(condition.items) do
    if #item.walks == 0 then
      local position = try('HGET', condition.partition, 'position') or '0'
      if type(position) == 'table' then return position.err end
      if not string.find(position, '^%d+$') then return 'DAMAGED position' end
      if tonumber(position) > condition.after then return 'CONDITION_FAILED ' .. position end
    else
      find_next(condition.tagged, item, condition.from, condition.after)
      if item.found then return 'CONDITION_FAILED ' .. rare.int(item.found) end
      if item.searched then searched = math.min(searched or item.searched, item.searched) end
    end
  end
  return searched and 'SEARCH_ON ' .. rare.int(searched)
end

-- Read the commits, and before them the tracking record and the condition.
local group, key, tracking, condition = {}, 1, nil, nil
local at = 3
if string.find(options, 't', 1, true) then tracking, key, at = read_tracking(key, at), key + 2, at + 3 end
if string.find(options, 'w', 1, true) then
  condition, at = read_condition(key, at)
  key = key + 2
end
while key <= #KEYS do
  local events, meta_key, index, partition, feed, after_feed = unpack(KEYS, key, key + 5)
  local workflow, commit_id, floor, time_us, options = unpack(ARGV, at, at + 4)
--@include append_arguments
  local meta = try('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest', 'expires')
  local w = rare.workflow_of(workflow, events, meta_key, index, partition, meta[4] or '0')
  local problem, cursor, score, is_new, retried, note = rare.read_workflow(w, meta, nil, time_us)
  if rare.is_from_replica(problem) then return redis.error_reply(problem) end
  if extras then
    extras = rare.extras_of(w, next_at, next_key, key, given, time_us)
    next_at, next_key = extras.next_at, extras.next_key
  end
--@include append_tags
  local has_events = first <= last
  if problem == 'NEW_PARTITION ' and not has_events then problem = nil end
  group[#group + 1] = {
    w = w, failure = problem, problem = problem, cursor = cursor or 0, score = score, is_new = is_new,
    retried = retried, note = note, given = given, first = first, last = last, has_events = has_events,
    feed_count = feed_count, feed = feed, commits = commits, commit_id = commit_id, call_id = call_id,
    kept_id = call_id or commit_id, tried = is_retry and floor or '', expected = expected, metadata = metadata,
    extras = extras, has_fields = has_fields, tags_key = tags_key, tagged = tagged, first_tag = first_tag,
  }
  at, key = next_at, next_key
end

-- Find those that were stored before.
local found, missing, found_own = 0, 0, false
-- It is stored with the commits, so they were stored, too.
if tracking and tracking.is_stored then found, found_own = 1, true end
for _, commit in ipairs(group) do
  if commit.has_events and not commit.failure then
    local reply, was_answered = rare.earlier_reply(commit.w, commit.retried, commit.commit_id, commit.call_id,
      commit.tried, commit.expected, commit.commits, commit.first, commit.last)
    if type(reply) == 'number' then
      commit.stored, commit.was_answered, found = reply, was_answered, found + 1
      found_own = found_own or not commit.call_id
    elseif reply then
      -- A retry was rejected, and another try arrives after it.
      if was_answered then return redis.error_reply(reply) end
      commit.failure = reply == 'LOOK_AGAIN ' and 'COMMIT_UNSURE ' or reply
    else
      missing = missing + 1
    end
  end
end

-- Find the errors.
for _, commit in ipairs(group) do
  if found == 0 then
    commit.failure = commit.failure or commit_error(commit)
  elseif not commit.has_events then
    -- It was checked when the group was stored.
    commit.failure = nil
  elseif missing > 0 and not commit.failure then
    -- A group is stored whole. So if a commit with an id of the store is found, the missing ones were deleted since.
    if found_own and not commit.stored then commit.failure = 'COMMIT_UNSURE ' end
    if not found_own and commit.stored then commit.failure = 'COMMIT_STORED ' .. rare.int(commit.stored) end
  end
end
local errors, is_final, keeper = {}, false, nil
for place, commit in ipairs(group) do
  local text = tostring(commit.failure)
  if commit.failure then
    if not is_of_commit(text) then return rejected_by_server(text) end
    errors[#errors + 1] = ' ' .. (place - 1) .. ' ' .. rare.percent_encoded(text)
    is_final = is_final or not SETTLED[string.match(text, '^%S+')]
  end
  if commit.has_events and not commit.problem then keeper = keeper or commit end
end
if tracking and tracking.failure and found == 0 then
  local text = tostring(tracking.failure)
  if not is_of_commit(text) then return rejected_by_server(text) end
  errors[#errors + 1] = ' ' .. #group .. ' ' .. rare.percent_encoded(text)
  is_final = is_final or not SETTLED[string.match(text, '^%S+')]
end
if #errors > 0 then
  local reply = 'GROUP_REJECTED' .. table.concat(errors)
  -- One of its commits is enough: a first try that arrives late finds the reply there.
  if is_retry and is_final and keeper then
    rare.keep_reply(keeper.w.partition, keeper.kept_id, reply, keeper.w.meta, not keeper.is_new)
  end
  return redis.error_reply(reply)
end

-- Check the condition, unless the group was stored before.
local failure = found == 0 and condition and condition_error(condition)
if failure then
  local code = string.match(failure, '^%u+_%u+')
  if code == 'CONDITION_FAILED' and is_retry and keeper then
    rare.keep_reply(keeper.w.partition, keeper.kept_id, failure, keeper.w.meta, not keeper.is_new)
  end
  return code and redis.error_reply(failure) or rejected_by_server(failure)
end

-- Store them.
if found == 0 then
  failure = tracking and tracking_error(tracking) or group[1] and write_error(group[1].w)
  if failure then return rejected_by_server(failure) end
end
local replies = {}
for place, commit in ipairs(group) do
  local w, given, first, last, extras = commit.w, commit.given, commit.first, commit.last, commit.extras
  local workflow, events, meta_key, index, partition = w.id, w.events, w.meta, w.index, w.partition
  local feed, feed_count, commits, call_id = commit.feed, commit.feed_count, commit.commits, commit.call_id
  local has_fields, tags_key, tagged, first_tag = commit.has_fields, commit.tags_key, commit.tagged, commit.first_tag
  local commit_id, metadata, is_new, retried = commit.commit_id, commit.metadata, commit.is_new, commit.retried
  local cursor, known_largest, largest, cursor_text, is_stored = commit.cursor, w.largest, 0, nil, nil
  local reply, note, position = cursor, commit.note, nil
  if found > 0 then
    reply = commit.stored or tonumber(commit.expected) or cursor
  else
--@include append_entries
    -- Only the first one can fail here, by a user who may not XADD.
    if not is_stored then return rejected_by_server(reply.err) end
    if cursor_text then
      local score = score_above(index, commit.score)
--@include append_cursor
    end
  end
  if is_retry and commit.has_events and not commit.was_answered then
    rare.keep_reply(partition, commit.kept_id, commit.stored or cursor, meta_key, true)
  end
  if given.P then
    reply = type(reply) == 'number' and rare.with_position(w, reply) or reply .. ' ' .. string.format('%d', position)
  end
  replies[place] = reply
end
if tracking and found == 0 then
  local result = try('HSET', tracking.key, tracking.name, tracking.value)
  if type(result) == 'table' then return rejected_by_server(result.err) end
end
return replies
