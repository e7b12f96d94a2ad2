-- Read the tags of a commit. The script's loop includes this part after the extras, because a call would cost a plain
-- commit time. `tagged` is the index of all tags, if the namespace has one.
  local tags_key, tagged, first_tag = nil, nil, next_at
  if has_fields and given.T then
    tags_key = unpack(KEYS, next_key, next_key)
    next_at, next_key = next_at + given.T, next_key + 1
    if given.W then
      tagged = unpack(KEYS, next_key, next_key)
      next_key = next_key + 1
    end
  end
