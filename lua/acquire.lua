-- Give an owner the lease of a workflow, with a fencing token that outdates every earlier one.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, fence, lease_id, lease_owner, lease_until, lease_ms,
--                     completed, expires
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[4]  partition  hash of the partition: made, counts, position, fence, leased, and the replies to retries
-- KEYS[5]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  owner
-- ARGV[5]  how long the lease lasts, in milliseconds
-- ARGV[6]  the caller's time (Unix microseconds)
-- ARGV[7]  'claim' for a workflow that was left unfinished, '' for any
-- Reply    integer: the fencing token; or, for a claim, nil if another owner came first
-- Errors   LEASE_HELD <milliseconds left> <owner, percent-encoded>; DAMAGED <what>; NEW_PARTITION; END_REACHED
--
-- Tokens follow the server's clock and are above every earlier token of the partition. So a lease from before a
-- delete never fits the workflow that is created after it. A call that is sent twice, or delivered late, returns the
-- same token.

--@include numbers
--@include clock
--@include meta
--@include partition
--@include index
--@include members
--@include feed
--@include calls
--@include replies
--@include owner

local meta_key, index, leases, partition, feed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local workflow, call_id, retry, owner, ttl_ms, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local is_claim = ARGV[7] == 'claim'

local TEN_YEARS_US = 315360000000000

local meta = redis.call('HMGET', meta_key, 'fence', 'lease_id', 'lease_owner', 'lease_until', 'completed', 'created',
  'retried', 'lease_ms', 'expires')
local highest = as_count(redis.call('HGET', partition, 'fence'))
local fence, ends, lasts = as_count(meta[1]), as_count(meta[4]), as_count(meta[8])
if not fence or not ends or not lasts or not highest then return redis.error_reply('DAMAGED lease') end
if retry ~= '' or meta[7] or not meta[6] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
if meta[2] == call_id then
  -- Another retry may arrive after the lease was released.
  if retry ~= '' then keep_reply(partition, call_id, fence, meta_key, true) end
  return fence
end
local micros, ms = now()
-- An import from a server with another clock may bring a token above the partition's highest. A token that is years
-- ahead is damage, and must not become the partition's.
if fence > math.max(micros, highest) + TEN_YEARS_US then return redis.error_reply('DAMAGED lease') end
if is_over(meta[9], math.max(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end

-- Return the milliseconds that the lease has left. More than its full time means that the clock was set back: it is
-- over.
local function time_left()
  local left = ends - ms
  return left <= lasts and left or 0
end

local function act()
  local left = time_left()
  if is_claim then
    -- A workflow that cannot be claimed must not stand before those that can.
    if not meta[1] or meta[5] then remove_member(leases, workflow, partition, 'unfinished') end
    if not meta[1] or meta[5] or left > 0 then return false end
  elseif left > 0 and meta[3] ~= owner then
    return 'LEASE_HELD ' .. int(left) .. ' ' .. percent_encoded(meta[3])
  end
  local top = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  redis.call('ZCARD', leases)
  local problem, retried = not meta[6] and meta_error(index, workflow)
  if not meta[6] and not problem then problem, retried = partition_error(partition) end
  if not meta[6] and not problem then problem = feed_error(feed, index, partition) end
  if problem then return problem end

  -- A user who may not count is rejected before anything is written.
  if not meta[5] then redis.call('HINCRBY', partition, 'unfinished', 0) end
  local token = math.max(micros, fence + 1, highest + 1)
  local lease_ends = int(ms + tonumber(ttl_ms))
  if not meta[6] then
    redis.call('HSET', meta_key, 'created', int(micros))
    if retried then redis.call('HSET', meta_key, 'retried', '1') end
    touch_index(index, partition, next_score(top, micros, caller_us), workflow)
    add_to_feed(feed, index, partition, ms, 1, '0', 0, workflow)
    meta[6] = micros
  end
  redis.call('HSET', meta_key, 'fence', int(token), 'lease_id', call_id, 'lease_owner', owner,
    'lease_until', lease_ends, 'lease_ms', ttl_ms)
  redis.call('HSET', partition, 'fence', int(token))
  note_lease_time(partition, ms)
  if not meta[5] then add_member(leases, lease_ends, workflow, partition, 'unfinished') end
  return token
end

local reply = act()
if retry ~= '' and reply ~= 'NEW_PARTITION ' then keep_reply(partition, call_id, reply, meta_key, meta[6]) end
return as_reply(reply)
