-- The facts that the state in a snapshot refers to, in the field `refs` of the snapshot's hash: the facts' hashes,
-- each after its length in two bytes, the high one first. A snapshot without this field does not tell them.

-- Return the hashes in such a field, as an array; nothing if it is damaged.
local function unpack_refs(packed)
  local hashes, at = {}, 1
  while at < #packed do
    local high, low = string.byte(packed, at, at + 1)
    local last = at + 1 + high * 256 + low
    if last > #packed then return nil end
    hashes[#hashes + 1] = string.sub(packed, at + 2, last)
    at = last + 1
  end
  return at > #packed and hashes or nil
end
