-- Move a consumer's partition of a subscription: store its position, what is parked, and how often a commit failed.
--
-- KEYS[1]   subscription  hash of the partition in the subscription: position, owner, fence, until, lease_ms,
--                         attempts, reason, died, sequence
-- KEYS[2]   parked        hash of the partition's parked commits in the subscription, by their place in the feed
-- KEYS[3]   feed          stream of the partition's commits
-- KEYS[4]   partition     hash of the partition: feed_trimmed
-- ARGV[1]   fencing token
-- ARGV[2]   number of this call under the token
-- ARGV[3]   number of the last call that was answered
-- ARGV[4]   the new position, or '' if it stays
-- ARGV[5]   how often the next commit has failed
-- ARGV[6]   the reason of its last failure
-- ARGV[7]   'suspect' if a consumer has died since the position was reached; 'trying' once this one tries the next
--           commit then; else ''
-- ARGV[8]   '1' to release the lease
-- ARGV[9…]  parked commits: for each its place, and the commit; '' to remove it
-- Reply     integer: 1
-- Errors    LEASE_LOST <owner, percent-encoded>; FEED_CHANGED, if the feed does not have the new position; DAMAGED
--           <what>
--
-- A call that is sent twice, or delivered late, changes nothing: a later one has a higher number. So the position
-- never goes back. After a failover the feed may lack commits that were read, and have others at their positions.
-- Their acknowledgement is rejected, so a stored position always belongs to the history that the server has. If the
-- server has lost an earlier call, the lease is over: a later position would pass over commits that were parked.

--@include numbers
--@include owner

local subscription, parked, feed, partition = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, number, answered, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local attempts, reason, died, is_released = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local state = redis.call('HMGET', subscription, 'fence', 'owner', 'sequence')
local sequence = as_count(state[3])
if not sequence then return redis.error_reply('DAMAGED subscription') end
-- A retry of a call that has released the lease.
if not state[2] and sequence >= tonumber(number) and state[1] == int(tonumber(token) + 1) then return 1 end
if state[1] ~= token then return redis.error_reply('LEASE_LOST ' .. percent_encoded(state[2])) end
redis.call('HLEN', parked)
if tonumber(number) <= sequence then return 1 end
if sequence < tonumber(answered) then return redis.error_reply('LEASE_LOST ') end
local id, at_position = string.match(position, '^((%d+)%-%d+)')
if id and #redis.call('XRANGE', feed, id, id) == 0 then
  local trimmed = string.match(redis.call('HGET', partition, 'feed_trimmed') or '', '^%d+') or '0'
  if tonumber(at_position) > tonumber(trimmed) then return redis.error_reply('FEED_CHANGED ') end
end

redis.call('HSET', subscription, 'sequence', number)
if position ~= '' then redis.call('HSET', subscription, 'position', position) end
if attempts == '0' then
  redis.call('HDEL', subscription, 'attempts', 'reason')
else
  redis.call('HSET', subscription, 'attempts', attempts, 'reason', reason)
end
if died == '' then redis.call('HDEL', subscription, 'died') else redis.call('HSET', subscription, 'died', died) end
for at = 9, #ARGV, 2 do
  local place, commit = ARGV[at], ARGV[at + 1]
  if commit == '' then redis.call('HDEL', parked, place) else redis.call('HSET', parked, place, commit) end
end
if is_released == '1' then
  -- The token no longer fits, so nothing more is stored under it.
  redis.call('HSET', subscription, 'fence', int(tonumber(token) + 1))
  redis.call('HDEL', subscription, 'owner', 'until', 'lease_ms')
end
return 1
