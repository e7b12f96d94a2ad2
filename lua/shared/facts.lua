-- Goes with the numbers.
--
-- The facts that a write refers to. `at` is the place in ARGV of the first of `count` facts, each a hash and a value, ''
-- for one that must be there; `key` the place in KEYS of the workflow's set of references, which is followed by two keys
-- for each fact, its bucket and the bucket's sorted set of times; unless they are `elsewhere`, and were seen to before.
-- The meta hash counts the references, so that a set that was lost is noticed.

-- Whether they can be kept: an error, or nothing.
local function unkeepable(at, key, count, elsewhere, meta_key)
  if count == 0 then return nil end
  local found = redis.pcall('SCARD', KEYS[key])
  if type(found) == 'table' then return found.err end
  if found < (whole(redis.call('HGET', meta_key, 'refs')) or 0) then return 'DAMAGED references' end
  for number = 1, elsewhere and 0 or count do
    local hash, value = ARGV[at + 2 * number - 2], ARGV[at + 2 * number - 1]
    local there = redis.pcall('HEXISTS', KEYS[key + 2 * number - 1], hash)
    if type(there) == 'table' then return there.err end
    if there == 0 and value == '' then return 'FACT_MISSING ' .. hash end
    found = redis.pcall('ZCARD', KEYS[key + 2 * number])
    if type(found) == 'table' then return found.err end
  end
end

-- Keeps them, and that the workflow refers to them. A fact's time is the later one of the server's and the caller's.
local function keep(at, key, count, elsewhere, micros, meta_key)
  local added = 0
  for number = 1, count do
    local hash, value = ARGV[at + 2 * number - 2], ARGV[at + 2 * number - 1]
    if not elsewhere then
      if value ~= '' then redis.call('HSETNX', KEYS[key + 2 * number - 1], hash, value) end
      redis.call('ZADD', KEYS[key + 2 * number], int(micros), hash)
    end
    added = added + redis.call('SADD', KEYS[key], hash)
  end
  if added > 0 then redis.call('HINCRBY', meta_key, 'refs', added) end
end
