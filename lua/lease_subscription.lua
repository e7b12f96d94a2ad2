-- Lease a partition of a subscription to a consumer, or renew its lease.
--
-- KEYS[1]  subscription  hash of the partition in the subscription: position, owner, fence, until, lease_ms, attempts,
--                        reason, died, sequence, changes
-- KEYS[2]  parked        hash of the partition's parked commits in the subscription
-- ARGV[1]  consumer
-- ARGV[2]  how long the lease lasts, in milliseconds
-- ARGV[3]  the fencing token that the consumer has seen last
-- ARGV[4]  where a partition without a position begins
-- Reply    array: fencing token, position, failed attempts, reason of the last failure, 'suspect' if a consumer has
--          died since the position was reached, how often parked commits were changed from outside, how many commits
--          are parked; nil if another consumer has or had the lease
-- Errors   DAMAGED <what>
--
-- Tokens follow the server's clock and grow. A call that is sent twice returns the same token. One that is delivered
-- late has seen an older token than the hash holds, and changes nothing.
--
-- A consumer whose lease ends without a release may have died of the first commit that is to be read. Its partitions
-- are suspect from then on: a consumer notes there that it is `trying` the commit before it does. If it dies then,
-- that is a failed attempt.

--@include numbers
--@include clock

local subscription, parked = KEYS[1], KEYS[2]
local consumer, ttl_ms, seen, start = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local state = redis.call('HMGET', subscription, 'owner', 'fence', 'until', 'lease_ms', 'position', 'attempts',
  'died')
local owner, fence, ends, lasts = state[1], as_count(state[2]), as_count(state[3]), as_count(state[4])
local position, attempts, died = state[5], as_count(state[6]), state[7] or ''
if not fence or not ends or not lasts or not attempts then return redis.error_reply('DAMAGED subscription') end
local size = redis.call('HLEN', parked)
local micros, ms = now()

if owner ~= consumer then
  -- More time left than its full time means that the clock was set back: the lease is over.
  local left = ends - ms
  if int(fence) ~= seen or (owner and left > 0 and left <= lasts) then return false end
  position = position or start
  if owner then
    if died == 'trying' then attempts = attempts + 1 end
    died = 'suspect'
    redis.call('HSET', subscription, 'died', died)
  end
  fence = math.max(micros, fence + 1)
  redis.call('HSET', subscription, 'owner', consumer, 'fence', int(fence), 'position', position, 'sequence', 0)
  if attempts > 0 then redis.call('HSET', subscription, 'attempts', int(attempts)) end
end
redis.call('HSET', subscription, 'until', int(ms + tonumber(ttl_ms)), 'lease_ms', ttl_ms)
local texts = redis.call('HMGET', subscription, 'reason', 'changes')
return {fence, position, attempts, texts[1] or '', died, texts[2] or '0', size}
