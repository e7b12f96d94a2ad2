-- Include `numbers` and `snapshot_refs` before this part.

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
