-- Return the member of the set of tags for a tag of the commit that ends at a cursor, which is text. All scores are
-- 0, so the members are sorted by tag, and then by cursor. No tag contains a NUL.
local function tag_member(tag, cursor)
  return tag .. '\0' .. string.rep('0', 16 - #cursor) .. cursor
end
