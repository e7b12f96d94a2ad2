-- Release a lease: it can write nothing more, and the workflow can be claimed once it is due.
--
-- KEYS[1]  meta    hash of the workflow: fence, lease_id, lease_owner, lease_until, lease_ms, queue, woken, attempts,
--                  timer ('<when it is over> <name>'; Unix milliseconds, or 'inf')
-- KEYS[2]  leases  sorted set of the partition's leased workflows by the end of their leases
-- KEYS[3]  queues  hash of how many workflows each queue of the partition has
-- KEYS[4]  queue   sorted set of the queue's workflows by when they are due
-- ARGV[1]  workflow id
-- ARGV[2]  fencing token
-- ARGV[3]  when the workflow is due: '' now, '+<milliseconds>' from now on, a time (Unix milliseconds), 'inf'
-- ARGV[4]  the name of the workflow's timer after a space, or '' for none; the timer is over when the workflow is due
-- Reply    integer: 1, or 0 if the lease was lost or released before
-- Errors   OTHER_KEY <place> <key>
--
-- A message that came during the lease makes the workflow due now. A workflow that sets a timer has made progress.

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
due = due_at(due, ms)
if timer ~= '' then
  redis.call('HSET', meta_key, 'timer', (due == '+inf' and 'inf' or due) .. timer)
  redis.call('HDEL', meta_key, 'attempts')
end
if is_queued then
  if meta[3] then due = int(ms) end
  redis.call('ZADD', queue, due, workflow)
  hint(queues, queue, due, ms)
end
return 1
