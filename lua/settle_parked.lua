-- Replay parked commits of a subscription's partition, or drop them.
--
-- KEYS[1]   subscription  hash of the partition in the subscription: changes
-- KEYS[2]   parked        hash of the partition's parked commits in the subscription, by their place in the feed
-- ARGV[1]   'replay' or 'drop'
-- ARGV[2…]  places of the commits
-- Reply     integer: how many of them were parked
-- Errors    none
--
-- The text of a commit ends with its state. A waiting one is delivered as soon as no commit of its workflow is parked.

local subscription, parked = KEYS[1], KEYS[2]
local what = ARGV[1]

redis.call('HLEN', subscription)
local count = 0
for at = 2, #ARGV do
  local place = ARGV[at]
  local commit = redis.call('HGET', parked, place)
  if commit and string.find(commit, '"parked"]', -9, true) then
    count = count + 1
    if what == 'drop' then
      redis.call('HDEL', parked, place)
    else
      redis.call('HSET', parked, place, string.sub(commit, 1, -10) .. '"waiting"]')
    end
  end
end
-- The consumer that has the partition notices by this number.
if count > 0 then redis.call('HINCRBY', subscription, 'changes', 1) end
return count
