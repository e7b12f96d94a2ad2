-- Include `numbers` and `owner` before this part.
--
-- A projection has two hashes: its own, and one for a version that is built beside it. A runner's hash is found by its
-- fencing token. While it rebuilds a version, both have the token.

-- Return the key of the hash that a runner may write; or nothing, and the error that rejects it.
local function find_projection(main, beside, token, version)
  local owner
  for _, key in ipairs({ beside, main }) do
    local found = redis.call('HMGET', key, 'fence', 'version', 'owner')
    if found[1] == token then return key end
    if found[2] == version then owner = owner or found[3] end
  end
  return nil, 'LEASE_LOST ' .. percent_encoded(owner)
end

-- Let a runner's lease last for its full time from now on.
local function extend_projection(key, ms)
  redis.call('HSET', key, 'until', int(ms + (as_count(redis.call('HGET', key, 'lease_ms')) or 0)))
end
