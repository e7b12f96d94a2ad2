-- Compare members of the index of all tags with the entries that they name, and remove those that no entry has.
--
-- KEYS[1]   tagged  index of all tags, see lua/find_where.lua
-- KEYS[2…]  for each member, of its workflow:
--           events  stream
--           meta    hash: imported, imported_to
-- ARGV[1]   '1' to remove members, or ''
-- ARGV[2…]  the members, each with the workflow id before it
-- Reply     array: how many of the members were compared, the first ones; and the places of those that no entry has,
--           from 0
-- Errors    none

--@include tags

local tagged, removes = KEYS[1], ARGV[1]

-- How many tags of entries one call looks through, and those of one more entry. The bound limits the script's time.
local MOST_TAGS = 8192

-- Return how many tags an entry has, and whether one of them has this member.
local function has_member(entry, meta_key, workflow, member)
  local imported, imported_to = unpack(redis.call('HMGET', meta_key, 'imported', 'imported_to'))
  local own, all = entry_tags(entry, workflow, imported, imported_to)
  for place = 1, #own do
    if all[place] == member then return #own, true end
  end
  return #own, false
end

local reply, seen, key = {0}, 0, 2
local at = 2
while seen < MOST_TAGS do
  local events, meta_key = unpack(KEYS, key, key + 1)
  local workflow, member = unpack(ARGV, at, at + 1)
  if not member then break end
  local cursor = string.match(member, '^[^%z]*%z%d+%z(%d+)%z')
  local entry = cursor and redis.call('XRANGE', events, cursor, cursor)[1]
  local count, found = 1, false
  if entry then count, found = has_member(entry, meta_key, workflow, member) end
  if not found then
    reply[#reply + 1] = reply[1]
    if removes ~= '' then redis.call('ZREM', tagged, member) end
  end
  reply[1], seen, key, at = reply[1] + 1, seen + count, key + 2, at + 2
end
return reply
