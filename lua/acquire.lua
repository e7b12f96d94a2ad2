-- Give an owner the lease of a workflow, with a fencing token that outdates every earlier one.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, fence, lease_id, lease_owner, lease_until, lease_ms,
--                     completed, parked, queue, expires
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[4]  partition  hash of the partition: made, counts, position, fence, and the replies to retries
-- KEYS[5]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[6]  queues     hash of how many workflows each queue of the partition has
-- KEYS[7]  queue      sorted set of a queue's workflows by when they are due: of the workflow's, or the default one
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  owner
-- ARGV[5]  how long the lease lasts, in milliseconds
-- ARGV[6]  the caller's time (Unix microseconds)
-- Reply    integer: the fencing token
-- Errors   LEASE_HELD <milliseconds left> <owner, percent-encoded>; OTHER_KEY <place> <key>; DAMAGED <what>;
--          NEW_PARTITION; END_REACHED
--
-- A call that is sent twice, or delivered late, returns the same token.

--@include numbers
--@include clock
--@include meta
--@include partition
--@include index
--@include feed
--@include calls
--@include replies
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include fence

local meta_key, index, leases, partition, feed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local queues, queue = KEYS[6], KEYS[7]
local workflow, call_id, retry, owner, ttl_ms, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local meta = redis.call('HMGET', meta_key, 'fence', 'lease_id', 'lease_owner', 'lease_until', 'completed', 'created',
  'retried', 'lease_ms', 'expires', 'queue', 'parked')
local micros, ms = now()
local ends, lasts, token = as_count(meta[4]), as_count(meta[8]), next_token(meta[1], partition, micros)
if not ends or not lasts or not token then return redis.error_reply('DAMAGED lease') end
if retry ~= '' or meta[7] or not meta[6] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
if meta[2] == call_id then
  -- Another retry may arrive after the lease was released.
  if retry ~= '' then keep_reply(partition, call_id, tonumber(meta[1]), meta_key, true) end
  return tonumber(meta[1])
end
if is_over(meta[9], math.max(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end
local problem = queue_error(queues, queue, meta[10], 7)
if problem then return redis.error_reply(problem) end

local function act()
  local left = time_left(ends, lasts, ms)
  if left > 0 and meta[3] ~= owner then return 'LEASE_HELD ' .. int(left) .. ' ' .. percent_encoded(meta[3]) end
  local top = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  redis.call('ZCARD', leases)
  local problem, retried = not meta[6] and meta_error(index, workflow)
  if not meta[6] and not problem then problem, retried = partition_error(partition) end
  if not meta[6] and not problem then problem = feed_error(feed, index, partition) end
  if problem then return problem end

  local is_queued = not (meta[5] or meta[11])
  -- A user who may not count is rejected before anything is written.
  if is_queued then redis.call('HINCRBY', queues, 'leased at', 0) end
  if not meta[6] then
    redis.call('HSET', meta_key, 'created', int(micros))
    if retried then redis.call('HSET', meta_key, 'retried', '1') end
    touch_index(index, partition, next_score(top, micros, caller_us), workflow)
    add_to_feed(feed, index, partition, ms, 1, '0', 0, workflow)
    meta[6] = micros
  end
  local lease_ends = give_lease(meta_key, partition, queues, token, call_id, owner, ttl_ms, ms)
  if is_queued then
    if not meta[10] then redis.call('HSET', meta_key, 'queue', queue_name(queues, queue)) end
    put_in_queue(queues, queue, workflow, lease_ends)
    redis.call('ZADD', leases, lease_ends, workflow)
  end
  return token
end

local reply = act()
if retry ~= '' and reply ~= 'NEW_PARTITION ' then keep_reply(partition, call_id, reply, meta_key, meta[6]) end
return as_reply(reply)
