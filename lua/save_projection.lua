-- Save the state of a projection and its positions in one step, under the runner's lease, and extend the lease.
--
-- KEYS[1]  projection  hash of the projection: version, state, positions, saves, saved_ms, fence, lease_id, owner,
--                      until, lease_ms
-- KEYS[2]  projection  hash of a version that is built beside it, with the same fields
-- ARGV[1]  fencing token
-- ARGV[2]  version
-- ARGV[3]  number of this save
-- ARGV[4]  positions
-- ARGV[5]  state, or '' if it has not changed
-- ARGV[6]  'done' once the version has caught up; 'rebuild' to build it again beside its last state; or ''
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, percent-encoded>; DAMAGED <what>
--
-- A version that was built beside the projection takes its place once it has caught up. A save that arrives after a
-- later one changes nothing.

--@include numbers
--@include clock
--@include owner
--@include projection

local main, beside = KEYS[1], KEYS[2]
local token, version, number, positions, state, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local key, problem = find_projection(main, beside, token, version)
if problem then return redis.error_reply(problem) end
local saves = as_count(redis.call('HGET', key, 'saves'))
if not saves then return redis.error_reply('DAMAGED saves') end
if saves >= tonumber(number) then return 1 end

local _, ms = now()
if mode == 'rebuild' and key == main then
  local lease = redis.call('HMGET', main, 'version', 'fence', 'lease_id', 'owner', 'lease_ms')
  redis.call('DEL', beside)
  redis.call('HSET', beside, 'version', lease[1], 'fence', lease[2], 'lease_id', lease[3], 'owner', lease[4],
    'lease_ms', lease[5])
  key = beside
end
redis.call('HSET', key, 'positions', positions, 'saves', number, 'saved_ms', int(ms))
if state ~= '' then redis.call('HSET', key, 'state', state) end
extend_projection(key, ms)
if mode == 'done' and key == beside then redis.call('RENAME', beside, main) end
return 1
