-- Include `numbers` before this part.
--
-- The facts that the state in a snapshot refers to, in the field `refs` of the snapshot's hash: the facts' hashes, each
-- after its length in two bytes, the high one first. A snapshot without this field does not tell them.

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

-- Return the error that keeps a snapshot that refers to facts from being stored, or nothing. Each fact must be among
-- the workflow's references, or among the `count` facts of this write, the first of them at `first` in ARGV.
local function snapshot_refs_error(packed, refs, meta_key, first, count)
  if packed == '' then return nil end
  local size = redis.pcall('ZCARD', refs)
  if type(size) == 'table' then return size.err end
  if size < (as_count(redis.call('HGET', meta_key, 'refs')) or 0) then return 'DAMAGED references' end
  local given = {}
  for place = first, first + 2 * count - 2, 2 do
    local hash = ARGV[place]
    given[hash] = true
  end
  for _, hash in ipairs(unpack_refs(packed)) do
    if not given[hash] and not redis.call('ZSCORE', refs, hash) then return 'REFS_UNKNOWN ' end
  end
end

-- Store the facts that a snapshot refers to; `packed` is nil if they are not told.
local function store_snapshot_refs(snapshot, packed)
  if packed then
    redis.call('HSET', snapshot, 'refs', packed)
  else
    redis.call('HDEL', snapshot, 'refs')
  end
end
