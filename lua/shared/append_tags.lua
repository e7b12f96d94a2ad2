-- Include `numbers` and `tags` before this part.

-- Return the tags of a commit, and the key for them.
local function tags_of(given, key, at)
  if not given.T then return {} end
  local tags = {unpack(ARGV, at, at + tonumber(given.T) - 1)}
  tags.key = unpack(KEYS, key, key)
  return tags
end

-- Return the further fields of the last entry of a commit with tags: the metadata; the tags, from which `trim` knows
-- what to remove, with a byte between them that no text has; and how many entries the commit has, if not one.
local function tag_fields(tags, given)
  if not tags.key then return nil end
  local fields = {'t', table.concat(tags, '\255')}
  if given.n then fields[3], fields[4] = 'n', given.n end
  if given.m then return {'m', given.m, unpack(fields)} end
  return fields
end

local function store_tags(w, tags, cursor)
  if not tags.key then return end
  for _, tag in ipairs(tags) do call('ZADD', tags.key, 0, tag_member(tag, int(cursor))) end
  call('HINCRBY', w.meta, 'tags', #tags)
end
