-- Include `tags` before this part.

-- Return the error that keeps a commit's tags from being stored, or nothing.
local function tags_error(tags_key, tagged)
  local size = try('ZCARD', tags_key)
  if type(size) == 'number' and tagged then size = try('ZCARD', tagged) end
  return type(size) == 'table' and size.err or nil
end

-- Add the tags of a commit to the index of all tags.
local function add_to_index(tagged, first_tag, given, position, cursor, workflow)
  local members, at, after = {}, int(position), int(cursor)
  local tags = {unpack(ARGV, first_tag, first_tag + given.T - 1)}
  for place, backs in ipairs(backs_of(tags, given.W)) do
    members[2 * place - 1], members[2 * place] = 0, tagged_member(tags[place], at, after, backs, workflow)
  end
  call('ZADD', tagged, unpack(members))
end
