-- Include `append_workflow` before this part. It finds a commit whose reply was lost.

-- How many entries, and bytes of entries, the scans of one call read together. The bound limits the script's time.
local MOST_SCANNED, MOST_SCANNED_BYTES = 8192, 8388608

-- The scans through the entries of each workflow, newest first: the cursors of the commits by id, and the entries'
-- IDs.
local scans, begun = {}, 0
local entries_left, bytes_left = MOST_SCANNED, MOST_SCANNED_BYTES

-- Scan the next entries of the workflow.
local function scan_more(w, scan)
  local fitting = math.floor(1048576 / math.max(1, tonumber(w.largest)))
  local count = math.min(scan.count, entries_left, math.max(1, fitting))
  local page = call('XREVRANGE', w.events, scan.upper, '-', 'COUNT', count)
  for _, entry in ipairs(page) do
    local commit_id = entry[2][4]
    scan.cursors[commit_id] = scan.cursors[commit_id] or tonumber(string.match(entry[1], '^%d+'))
    scan.ids[entry[1]] = true
    scan.upper = '(' .. entry[1]
    bytes_left = bytes_left - #entry[2][1] - #entry[2][2]
  end
  entries_left = entries_left - #page
  scan.is_done = #page < count
  scan.count = scan.count == 1 and 16 or 256
end

-- Return the cursor of a commit among the entries after `floor`, the ID of an entry that the workflow had before the
-- commit's first try. Return false if it is not among them; nil and an error if that cannot be known.
local function find_commit(w, commit_id, floor)
  local scan = scans[w.events]
  if not scan then
    -- With many workflows, the first pages of all must fit into the bound.
    begun = begun + 1
    scan = {cursors = {}, ids = {}, upper = '+', count = begun <= 256 and 16 or 1}
    scans[w.events] = scan
  end
  while not (scan.cursors[commit_id] or scan.ids[floor] or scan.is_done) do
    if entries_left <= 0 or bytes_left <= 0 then
      -- The scans of other workflows have used up a part of the bound. If it is sent again, this one may come first.
      return nil, next(scans) == w.events and not next(scans, w.events) and 'COMMIT_UNSURE ' or 'LOOK_AGAIN '
    end
    scan_more(w, scan)
  end
  if scan.cursors[commit_id] then return scan.cursors[commit_id] end
  if scan.ids[floor] then return false end
  -- The trimmed entries may have held the commit, unless the last one of them is the entry before its first try.
  local trim = call('HMGET', w.meta, 'trimmed', 'trimmed_ms')
  if not trim[1] or trim[1] .. '-' .. (trim[2] or '') == floor then return false end
  return nil, 'COMMIT_UNSURE '
end

-- Return the cursor of a commit that was stored before as the reply with P: with its position, if its entry has it.
local function with_position(w, cursor)
  local entry = call('XRANGE', w.events, int(cursor), int(cursor))[1]
  local fields = entry and entry[2] or {}
  for at = 5, #fields, 2 do
    if fields[at] == 'p' then return int(cursor) .. ' ' .. fields[at + 1] end
  end
  return cursor
end

-- Return the cursor of a commit that was stored before, or an error; and whether a retry of it got that reply.
local function earlier_reply(w, retried, commit_id, call_id, tried, expected, commits, first, last)
  if tried == '' and not (call_id or retried) then return nil end
  if tried ~= '' or retried then
    local reply = try('HGET', w.partition, 'c' .. (call_id or commit_id))
    if reply then return reply.err or tonumber(reply) or reply, true end
  end
  if call_id then
    local stored = try('HGET', commits, commit_id)
    if stored then return stored.err or as_count(stored) or 'DAMAGED commits' end
    local ids = as_count(call('HGET', w.meta, 'ids'))
    if not ids then return 'DAMAGED meta hash' end
    if call('HLEN', commits) >= ids then return nil end
    -- Some ids are lost. The entries that are not trimmed have them, too.
    local found, failure = find_commit(w, commit_id, '')
    return found or failure == 'LOOK_AGAIN ' and failure or failure and 'DAMAGED commits' or nil
  end
  if tried == '' or first > last then return nil end
  local length = try('XLEN', w.events)
  if type(length) == 'table' then return length.err end
  if not expected then
    local found, failure = find_commit(w, commit_id, tried)
    return found or failure or nil
  end
  -- With an expected cursor, the commit can be in one place only.
  local place = tonumber(expected)
  for at = first, last, 3 do
    local count = ARGV[at]
    place = place + count
  end
  local entry = call('XRANGE', w.events, int(place), int(place))[1]
  if entry and entry[2][4] == commit_id then return place end
  if place <= (as_count(call('HGET', w.meta, 'trimmed')) or math.huge) then return 'COMMIT_UNSURE ' end
end
