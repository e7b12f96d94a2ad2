-- Release a lease: it can write nothing more, and the workflow can be claimed once it is due.
--
-- KEYS[1]  meta    hash of the workflow: fence, lease_id, lease_owner, lease_until, lease_ms, queue, woken
-- KEYS[2]  leases  sorted set of the partition's leased workflows by the end of their leases
-- KEYS[3]  queues  hash of how many workflows each queue of the partition has
-- KEYS[4]  queue   sorted set of the queue's workflows by when they are due
-- ARGV[1]  workflow id
-- ARGV[2]  fencing token
-- ARGV[3]  when the workflow is due: '' now, '+<milliseconds>' from now on, a time (Unix milliseconds), 'inf'
-- ARGV[4]  the workflow's timer, '<when it is over> <name>', or ''
-- Reply    integer: 1, or 0 if the lease was lost or released before
-- Errors   OTHER_KEY <place> <key>
--
-- A message that came during the lease makes the workflow due now.

--@include numbers
--@include clock
--@include owner
--@include queue
--@include other_key

local meta_key, leases, queues, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local workflow, token, due, timer = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local meta = redis.call('HMGET', meta_key, 'fence', 'queue', 'woken')
if meta[1] ~= token then return 0 end
local problem = queue_error(queues, queue, meta[2], 4)
if problem then return redis.error_reply(problem) end
local is_queued = redis.call('ZSCORE', queue, workflow)
local _, ms = now()
redis.call('ZREM', leases, workflow)
redis.call('HSET', meta_key, 'fence', int(tonumber(token) + 1))
redis.call('HDEL', meta_key, 'lease_id', 'lease_owner', 'lease_until', 'lease_ms', 'woken')
if timer ~= '' then redis.call('HSET', meta_key, 'timer', timer) end
if is_queued then
  due = meta[3] and int(ms) or due_at(due, ms)
  redis.call('ZADD', queue, due, workflow)
  hint(queues, queue, due, ms)
end
return 1
