-- Include `numbers` before this part.
--
-- The facts that a write refers to. `at` is the place in ARGV of the first of `count` facts. Each fact is a hash and
-- a value; the value is '' for a fact that must be stored already. `key` is the place in KEYS of the workflow's sorted
-- set of references. Two keys follow it for each fact: its bucket, and the bucket's sorted set of times. None follow
-- if the facts were stored `ahead` of the write. The meta hash counts the references, so that the loss of the sorted
-- set is noticed.

-- Return the error that keeps the facts from being stored, or nothing.
local function facts_error(at, key, count, ahead, meta_key)
  local refs = KEYS[key]
  if count == 0 then return nil end
  local size = redis.pcall('ZCARD', refs)
  if type(size) == 'table' then return size.err end
  local counted = as_count(redis.call('HGET', meta_key, 'refs'))
  if not counted or size < counted then return 'DAMAGED references' end
  for number = 1, ahead and 0 or count do
    local hash, value = ARGV[at + 2 * number - 2], ARGV[at + 2 * number - 1]
    local bucket, times = KEYS[key + 2 * number - 1], KEYS[key + 2 * number]
    local stored = redis.pcall('HEXISTS', bucket, hash)
    if type(stored) == 'table' then return stored.err end
    if stored == 0 and value == '' then return 'FACT_MISSING ' .. hash end
    size = redis.pcall('ZCARD', times)
    if type(size) == 'table' then return size.err end
  end
end

-- Store the facts, and the workflow's references to them, by the cursor that refers to them: 'inf' for a log's. A
-- later cursor replaces an earlier one. A fact's time is the later one of the server's and the caller's.
local function store_facts(at, key, count, ahead, micros, meta_key, cursor)
  local refs = KEYS[key]
  local added = 0
  for number = 1, count do
    local hash, value = ARGV[at + 2 * number - 2], ARGV[at + 2 * number - 1]
    local bucket, times = KEYS[key + 2 * number - 1], KEYS[key + 2 * number]
    if not ahead then
      if value ~= '' then redis.call('HSETNX', bucket, hash, value) end
      redis.call('ZADD', times, int(micros), hash)
    end
    added = added + redis.call('ZADD', refs, 'GT', cursor, hash)
  end
  if added > 0 then redis.call('HINCRBY', meta_key, 'refs', added) end
end
