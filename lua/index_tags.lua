-- Compare a page of a workflow's entries with the index of all tags, and add to the index what it lacks.
--
-- KEYS[1]  events  stream of the workflow
-- KEYS[2]  meta    hash of the workflow: largest, imported, imported_to
-- KEYS[3]  tagged  index of all tags, see lua/find_where.lua
-- ARGV[1]  workflow id
-- ARGV[2]  the first ID of the page, as XRANGE takes it
-- ARGV[3]  '1' to add tags, or ''
-- Reply    array: the first ID of the next page, '' if there is none; how many tags the index lacked; how many have an
--          entry without a position, and cannot be added
-- Errors   none

--@include numbers
--@include tags

local events, meta_key, tagged = KEYS[1], KEYS[2], KEYS[3]
local workflow, first, adds = ARGV[1], ARGV[2], ARGV[3]

-- How many entries one call reads, and about how many bytes of them. The bounds limit the script's time.
local MOST_ENTRIES, MOST_BYTES = 256, 1048576

local meta = redis.call('HMGET', meta_key, 'largest', 'imported', 'imported_to')
local size = math.floor(math.max(1, math.min(MOST_ENTRIES, MOST_BYTES / math.max(1, as_count(meta[1]) or 1))))
local page = redis.call('XRANGE', events, first, '+', 'COUNT', int(size))
local lacking, unplaced = 0, 0
for _, entry in ipairs(page) do
  local own, all = entry_tags(entry, workflow, meta[2], meta[3])
  for place = 1, #own do
    if not all[place] then
      unplaced = unplaced + 1
    elseif redis.call('ZSCORE', tagged, all[place]) ~= '0' then
      lacking = lacking + 1
      if adds ~= '' then redis.call('ZADD', tagged, 0, all[place]) end
    end
  end
end
return {#page == size and '(' .. page[size][1] or '', lacking, unplaced}
