-- Mark a workflow as finished: it can no longer be claimed.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, fence, lease_owner, queue, completed (Unix
--                     milliseconds), parked, expires
-- KEYS[2]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[3]  queues     hash of how many workflows each queue of the partition has
-- KEYS[4]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[5]  parked     sorted set of the partition's parked workflows by the time of that
-- KEYS[6]  completed  sorted set of the partition's completed workflows by the time of that
-- KEYS[7]  partition  hash of the partition: counts, and the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  the caller's time (Unix microseconds)
-- Reply    integer: 1, or 0 if it was finished before; nil if there is no such workflow
-- Errors   LEASE_LOST <owner, percent-encoded>; OTHER_KEY <place> <key>; END_REACHED

--@include numbers
--@include clock
--@include members
--@include calls
--@include replies
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include lease

local meta_key, leases, queues, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local parked, completed, partition = KEYS[5], KEYS[6], KEYS[7]
local workflow, call_id, retry, by_lease, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local meta = redis.call('HMGET', meta_key, 'created', 'queue', 'completed', 'retried', 'expires')
if retry ~= '' or meta[4] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[5], math.min(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end
local other = queue_error(queues, queue, meta[2], 4)
if other then return redis.error_reply(other) end

local function act()
  if meta[1] and meta[3] then return 0 end
  local problem = lease_error(lease_of(by_lease, workflow, meta_key, leases, queues, queue, 4))
  if problem then return problem end
  if not meta[1] then return false end
  redis.call('ZCARD', leases)
  redis.call('ZCARD', completed)
  redis.call('ZCARD', parked)
  -- HSET first: if the user may not use it, nothing is changed.
  redis.call('HSET', meta_key, 'completed', int(ms))
  redis.call('HDEL', meta_key, 'parked', 'parked_reason', 'attempts', 'woken', 'timer')
  remove_from_queue(queues, queue, workflow)
  redis.call('ZREM', leases, workflow)
  remove_member(parked, workflow, partition, 'parked')
  add_member(completed, int(ms), workflow, partition, 'completed')
  return 1
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return as_reply(reply)
