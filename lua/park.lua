-- Park a workflow: remove it from its queue until it is put back. The lease that it has is lost.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, fence, lease_id, lease_owner, lease_until, lease_ms,
--                     queue, completed, parked (Unix milliseconds), parked_reason, expires, inbox
-- KEYS[2]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[3]  queues     hash of how many workflows each queue of the partition has
-- KEYS[4]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[5]  parked     sorted set of the partition's parked workflows by the time of that
-- KEYS[6]  partition  hash of the partition: counts, and the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  the caller's time (Unix microseconds)
-- ARGV[6]  the reason; '' puts a parked workflow back
-- ARGV[7]  when it is due then: '' now, '+<milliseconds>' from now on, a time (Unix milliseconds), 'inf'
-- Reply    integer: 1, or 0 if it is put back and was not parked; nil if there is no such workflow
-- Errors   LEASE_LOST <owner, percent-encoded>; WORKFLOW_COMPLETED; OTHER_KEY <place> <key>; END_REACHED

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

local meta_key, leases, queues, queue, parked, partition = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local workflow, call_id, retry, by_lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local caller_us, reason, due = ARGV[5], ARGV[6], ARGV[7]

local meta = redis.call('HMGET', meta_key, 'created', 'queue', 'completed', 'retried', 'expires', 'parked', 'fence',
  'inbox', 'lease_until', 'lease_ms')
if retry ~= '' or meta[4] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[5], math.min(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end
local other = queue_error(queues, queue, meta[2], 4)
if other then return redis.error_reply(other) end

local function put_back()
  if not meta[6] then return 0 end
  redis.call('HDEL', meta_key, 'parked', 'parked_reason', 'attempts')
  remove_member(parked, workflow, partition, 'parked')
  if not meta[2] then redis.call('HSET', meta_key, 'queue', queue_name(queues, queue)) end
  local ends = as_count(meta[9]) or 0
  local is_leased = ends > ms and ends - ms <= (as_count(meta[10]) or 0)
  local score = is_leased and int(ends) or due_at(due, ms, meta[8])
  put_in_queue(queues, queue, workflow, score)
  if ends > 0 then redis.call('ZADD', leases, int(ends), workflow) end
  hint(queues, queue, score, ms)
  return 1
end

local function act()
  local problem = lease_error(lease_of(by_lease, workflow, meta_key, leases, queues, queue, 4))
  if problem then return problem end
  if not meta[1] then return false end
  if meta[3] then return 'WORKFLOW_COMPLETED ' end
  redis.call('ZCARD', leases)
  redis.call('ZCARD', parked)
  redis.call('HINCRBY', partition, 'parked', 0)
  if reason == '' then return put_back() end
  redis.call('HSET', meta_key, 'parked', int(ms), 'parked_reason', reason)
  if meta[7] then redis.call('HSET', meta_key, 'fence', int(tonumber(meta[7]) + 1)) end
  redis.call('HDEL', meta_key, 'lease_id', 'lease_owner', 'lease_until', 'lease_ms', 'woken')
  remove_from_queue(queues, queue, workflow)
  redis.call('ZREM', leases, workflow)
  add_member(parked, int(ms), workflow, partition, 'parked')
  return 1
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return as_reply(reply)
