-- Find the events of a namespace that match a query, a page of their commits at a time, with their events.
--
-- KEYS[1]   tagged     sorted set of the tags of the namespace's commits
-- KEYS[2]   partition  hash of the partition: position
-- KEYS[3…]  events     streams of workflows, which may have the commits
-- ARGV[1]   the position after which events are wanted
-- ARGV[2]   the position from which to search for commits
-- ARGV[3]   the position up to which to search, or '' for the present one
-- ARGV[4]   how many commits to find at most
-- ARGV[5]   about how many bytes of events to return at most
-- ARGV[6…]  how many items the query has; for each item the number of its tags, and the tags; and then the workflow id
--           of each stream
-- Reply     array: the position up to which to search; the position after the page, up to which all matches are found;
--           how many workflow ids follow: of commits whose streams are not among the keys; and those ids.
--           If there are none, then for each commit: its position, its cursor, which of its events match ('0,2' counts
--           back from the last one, '' is all), its workflow id, the number of its entries, and of each entry its ID,
--           header, payload and metadata ('' for none)
-- Errors    DAMAGED <what>

local tagged, partition = KEYS[1], KEYS[2]
local after, from, upto = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local most, bytes_left = tonumber(ARGV[4]), tonumber(ARGV[5])

--@include matching
--@include commit_entries

local at = 6
local items, streams, key
items, at = items_of(at)
streams, key = {}, 3
while true do
  local stream, workflow = unpack(KEYS, key, key), unpack(ARGV, at, at)
  if not stream then break end
  streams[workflow] = stream
  key, at = key + 1, at + 1
end

upto = upto or tonumber(redis.call('HGET', partition, 'position') or 0)
if not upto then return redis.error_reply('DAMAGED position') end
for _, item in ipairs(items) do find_next(tagged, item, from, after) end

-- Return the item with the first of the next commits, if there is one; and the position up to which all are found.
local function first_item()
  local first, searched = nil, upto
  for _, item in ipairs(items) do
    if item.searched then searched = math.min(searched, item.searched) end
    if item.found and not (first and first.found <= item.found) then first = item end
  end
  return first and first.found <= searched and first, searched
end

-- Return the commits of a page; and the position up to which they are all.
local function find_commits()
  local commits = {}
  while true do
    local first, searched = first_item()
    if not first then return commits, searched end
    local position, walk, all, backs = first.found, first.walks[1], false, {}
    if #commits == most then return commits, position - 1 end
    local cursor, workflow = string.match(walk.members[walk.at], '^(%d+)%z[%d,]*%z(.*)$', #walk.tag + 19)
    if not cursor then return nil end
    for _, item in ipairs(items) do
      if item.found == position then
        if item.backs == '' then all = true else backs[#backs + 1] = item.backs end
        find_next(tagged, item, position + 1, after)
      end
    end
    commits[#commits + 1] = {position, cursor, all and '' or table.concat(backs, ','), workflow}
  end
end

local commits, searched = find_commits()
if not commits then return redis.error_reply('DAMAGED tags') end
local reply, is_unknown = {upto, searched, 0}, {}
for _, commit in ipairs(commits) do
  local workflow = commit[4]
  if not (streams[workflow] or is_unknown[workflow]) then
    is_unknown[workflow] = true
    reply[#reply + 1] = workflow
  end
end
reply[3] = #reply - 3
if reply[3] > 0 then return reply end

local size = 3
for _, commit in ipairs(commits) do
  if bytes_left <= 0 then
    reply[2] = commit[1] - 1
    break
  end
  local entries = commit_entries(streams[commit[4]], commit[2])
  for place = 1, 4 do reply[size + place] = commit[place] end
  reply[size + 5] = #entries
  size = size + 5
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    local header, payload, metadata = fields[1], fields[2], field_of(fields, 'm') or ''
    reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4] = entry[1], header, payload, metadata
    size, bytes_left = size + 4, bytes_left - #header - #payload
  end
end
return reply
