-- Include `numbers`, `lease_time` and `queue` before this part.
--
-- Fencing tokens follow the server's clock and are above every earlier token of the partition. So a lease from before
-- a delete never fits the workflow that is created after it.
local TEN_YEARS_US = 315360000000000

-- Return the milliseconds that a lease has left. More than its full time means that the clock was set back, and so
-- that it is over.
local function time_left(ends, lasts, ms)
  local left = ends - ms
  return left <= lasts and left or 0
end

-- Return the next token; nothing if a stored one is damaged. An import from a server with another clock may bring
-- a token above the partition's highest. A token that is years ahead is damage, and must not become the partition's.
local function next_token(fence, partition, micros)
  local highest = as_count(redis.call('HGET', partition, 'fence'))
  fence = as_count(fence)
  if not fence or not highest or fence > math.max(micros, highest) + TEN_YEARS_US then return nil end
  return math.max(micros, fence + 1, highest + 1)
end

-- Give a lease to an owner. Return its end.
local function give_lease(meta_key, partition, queues, token, call_id, owner, ttl_ms, ms)
  local ends = int(ms + tonumber(ttl_ms))
  redis.call('HSET', meta_key, 'fence', int(token), 'lease_id', call_id, 'lease_owner', owner,
    'lease_until', ends, 'lease_ms', ttl_ms)
  redis.call('HSET', partition, 'fence', int(token))
  note_lease_time(queues, ms)
  return ends
end
