-- Give a runner the lease of a version of a projection, with a fencing token, and return what is saved of it.
--
-- KEYS[1]  projection  hash of the projection: version, state, positions, saves, saved_ms, fence, lease_id, owner,
--                      until, lease_ms
-- KEYS[2]  projection  hash of a version that is built beside it, with the same fields
-- ARGV[1]  id of this call
-- ARGV[2]  owner
-- ARGV[3]  how long the lease lasts, in milliseconds
-- ARGV[4]  version
-- Reply    array: the fencing token; the number of the last save; the saved positions, or nil; the saved state, or nil
-- Errors   LEASE_HELD <milliseconds left> <owner, percent-encoded>; VERSION_OUTDATED <the newest version>;
--          DAMAGED <what>
--
-- A version that is newer than the projection's is built beside it, in place of an older one there. Tokens follow the
-- server's clock and are above every earlier token. A call that is sent twice returns the same token.

--@include numbers
--@include clock
--@include owner

local main, beside = KEYS[1], KEYS[2]
local call_id, owner, ttl_ms, version = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local main_version = as_count(redis.call('HGET', main, 'version'))
local next_version = as_count(redis.call('HGET', beside, 'version'))
local main_fence = as_count(redis.call('HGET', main, 'fence'))
local next_fence = as_count(redis.call('HGET', beside, 'fence'))
if not main_version or not next_version then return redis.error_reply('DAMAGED version') end
if not main_fence or not next_fence then return redis.error_reply('DAMAGED lease') end
if version ~= main_version and version < math.max(main_version, next_version) and version ~= next_version then
  return redis.error_reply('VERSION_OUTDATED ' .. int(math.max(main_version, next_version)))
end

local is_beside = version == next_version or main_version > 0 and version > main_version
local key = is_beside and beside or main
local is_new = version ~= (is_beside and next_version or main_version)
local saved = redis.call('HMGET', key, 'fence', 'lease_id', 'owner', 'until', 'lease_ms', 'saves')
local token, ends, lasts, saves = tonumber(saved[1]), as_count(saved[4]), as_count(saved[5]), as_count(saved[6])
if not ends or not lasts or not saves then return redis.error_reply('DAMAGED lease') end

if is_new or saved[2] ~= call_id then
  local micros, ms = now()
  -- More than its full time means that the clock was set back: the lease is over.
  local left = ends - ms
  if not is_new and left > 0 and left <= lasts and saved[3] ~= owner then
    return redis.error_reply('LEASE_HELD ' .. int(left) .. ' ' .. percent_encoded(saved[3]))
  end
  token = math.max(micros, main_fence + 1, next_fence + 1)
  if is_new then
    redis.call('DEL', key)
    saves = 0
  end
  redis.call('HSET', key, 'version', int(version), 'fence', int(token), 'lease_id', call_id, 'owner', owner,
    'until', int(ms + tonumber(ttl_ms)), 'lease_ms', ttl_ms)
end
local found = redis.call('HMGET', key, 'positions', 'state')
return { token, saves, found[1], found[2] }
