-- Include `numbers` and `tags` before this part.

-- Return the tags of a commit, and the keys for them.
local function tags_of(given, key, at)
  if not given.T then return {} end
  local tags = {unpack(ARGV, at, at + tonumber(given.T) - 1)}
  tags.key, tags.all, tags.next_key = unpack(KEYS, key, key), given.W and unpack(KEYS, key + 1, key + 1), key + 1
  tags.backs = given.W
  if given.W then tags.next_key = key + 2 end
  return tags
end

-- Return the further fields of the last entry of a commit with tags: the metadata; the tags, from which `trim` knows
-- what to remove, with a byte between them that no text has; how many entries the commit has, if not one; and which
-- events have each tag, if not all do. The position follows once it is known.
local function tag_fields(tags, given)
  if not tags.key then return nil end
  local fields = {'t', table.concat(tags, '\255')}
  if given.n then fields[3], fields[4] = 'n', given.n end
  if (given.W or '') ~= '' then fields[#fields + 1], fields[#fields + 2] = 'e', given.W end
  if given.m then return {'m', given.m, unpack(fields)} end
  return fields
end

local function store_tags(w, tags, cursor, position)
  if not tags.key then return end
  local members, after = {}, int(cursor)
  for place, tag in ipairs(tags) do members[2 * place - 1], members[2 * place] = 0, tag_member(tag, after) end
  call('ZADD', tags.key, unpack(members))
  call('HINCRBY', w.meta, 'tags', #tags)
  if not tags.all then return end
  local at = int(position)
  for place, backs in ipairs(backs_of(tags, tags.backs)) do
    members[2 * place] = tagged_member(tags[place], at, after, backs, w.id)
  end
  call('ZADD', tags.all, unpack(members))
end
