-- Return the member of the set of tags for a tag of the commit that ends at a cursor, which is text. All scores are
-- 0, so the members are sorted by tag, and then by cursor. No tag contains a NUL.
local function tag_member(tag, cursor)
  return tag .. '\0' .. string.rep('0', 16 - #cursor) .. cursor
end

-- Return the member of the index of all tags for a tag of the commit that ends at a cursor and at a position, both of
-- them text. `backs` is which events of the commit have the tag, see `matching`.
local function tagged_member(tag, position, cursor, backs, workflow)
  return table.concat({tag, string.rep('0', 16 - #position) .. position, cursor, backs, workflow}, '\0')
end

-- Return which events of a commit have each of its tags, from the field of its last entry, if it has that.
local function backs_of(tags, text)
  local backs = {}
  for part in string.gmatch((text or '') .. '\255', '([^\255]*)\255') do backs[#backs + 1] = part end
  for place = #backs + 1, #tags do backs[place] = '' end
  return backs
end

-- Return the tags of an entry: of each its member of the workflow's set, and of the index of all tags. The entries up
-- to the cursor `imported_to` are from an import, which ended at the position `imported`.
local function entry_tags(entry, workflow, imported, imported_to)
  local own, all, fields = {}, {}, entry[2]
  local cursor, further = string.match(entry[1], '^%d+'), {}
  for at = 5, #fields, 2 do further[fields[at]] = fields[at + 1] end
  if not further.t then return own, all end
  local tags, position = {}, further.p
  for tag in string.gmatch(further.t, '[^\255]+') do tags[#tags + 1] = tag end
  local left = tonumber(imported_to or -1) - tonumber(cursor)
  if left >= 0 then position = string.format('%.0f', tonumber(imported) - left) end
  for place, backs in ipairs(backs_of(tags, further.e)) do
    own[place] = tag_member(tags[place], cursor)
    all[place] = position and tagged_member(tags[place], position, cursor, backs, workflow)
  end
  return own, all
end

-- Remove the tags of an entry from the workflow's set, and from the index of all tags, if the namespace has one.
-- Return how many the set had.
local function remove_entry_tags(entry, workflow, tags, tagged, imported, imported_to)
  local removed = 0
  local own, all = entry_tags(entry, workflow, imported, imported_to)
  for place, member in ipairs(own) do
    removed = removed + redis.call('ZREM', tags, member)
    if tagged ~= tags and all[place] then redis.call('ZREM', tagged, all[place]) end
  end
  return removed
end
