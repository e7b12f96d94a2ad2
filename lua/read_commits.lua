-- Read the events of commits of one partition, and the next entries of its feed.
--
-- KEYS[1]   feed    stream of the partition's commits
-- KEYS[2…]  events  streams of workflows
-- ARGV[1]   the ID of the entry before those whose commits are read, or '' if it is not known
-- ARGV[2]   the ID of the last entry whose commit is read, or ''
-- ARGV[3]   the ID from which to read entries of the feed
-- ARGV[4]   how many entries to read at most, or '0'
-- ARGV[5…]  for each stream: the ID from which to read, how many commits, and the ID of the last entry of each of them
-- Reply     array: 1 if the feed has the entries of ARGV[1] and ARGV[2], else 0; how many entries of the feed follow;
--           of each of them its ID, the name of its field, and the value. Then for each commit: the header, the
--           payload and the metadata ('' for none) of its entry; for a commit with another number of entries, first
--           that number, and then also the ID of each. It is 0 if the commit's last entry is not in the stream
-- Errors    none
--
-- The reply is flat, because each array in a reply costs the reader more than the data in it.

local feed = KEYS[1]
local before_id, last_id, next_id, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local call = redis.call

-- Return whether the feed has an entry.
local function has(id) return id == '' or #call('XRANGE', feed, id, id) > 0 end

-- Return whether an entry is another one than the wanted entry, and no later one: it is of no commit after that one.
local function is_before(id, wanted)
  return id ~= wanted and tonumber(string.match(id, '^%d+')) <= tonumber(string.match(wanted, '^%d+'))
end

local reply = {has(before_id) and has(last_id) and 1 or 0, 0}
local size = 2
if count ~= '0' then
  local entries = call('XRANGE', feed, next_id, '+', 'COUNT', count)
  reply[2] = #entries
  for _, entry in ipairs(entries) do
    reply[size + 1], reply[size + 2], reply[size + 3] = entry[1], entry[2][1], entry[2][2]
    size = size + 3
  end
end

local at = 5
for key = 2, #KEYS do
  local commits = tonumber(ARGV[at + 1])
  local entries = call('XRANGE', KEYS[key], ARGV[at], ARGV[at + 1 + commits])
  local place = 1
  for number = at + 2, at + 1 + commits do
    local wanted, first = ARGV[number], place
    while entries[place] and is_before(entries[place][1], wanted) do place = place + 1 end
    local found = 0
    if entries[place] and entries[place][1] == wanted then found, place = place - first + 1, place + 1 end
    if found ~= 1 then
      size = size + 1
      reply[size] = found
    end
    for part = first, first + found - 1 do
      local fields = entries[part][2]
      if found > 1 then
        size = size + 1
        reply[size] = entries[part][1]
      end
      reply[size + 1], reply[size + 2], reply[size + 3] = fields[1], fields[2], fields[5] == 'm' and fields[6] or ''
      size = size + 3
    end
  end
  at = at + 2 + commits
end
return reply
