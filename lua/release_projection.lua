-- Release the lease of a projection's runner: it can save nothing more, and another one can acquire the lease.
--
-- KEYS[1]  projection  hash of the projection: fence, lease_id, owner, until, lease_ms
-- KEYS[2]  projection  hash of a version that is built beside it, with the same fields
-- ARGV[1]  fencing token
-- Reply    integer: 1, or 0 if the lease was lost or released before
-- Errors   none

--@include numbers

local keys, token = { KEYS[1], KEYS[2] }, ARGV[1]

local released = 0
for _, key in ipairs(keys) do
  if redis.call('HGET', key, 'fence') == token then
    redis.call('HSET', key, 'fence', int(tonumber(token) + 1))
    redis.call('HDEL', key, 'lease_id', 'owner', 'until', 'lease_ms')
    released = 1
  end
end
return released
