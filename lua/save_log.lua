-- Save a workflow's whole log over the one before.
--
-- KEYS[1]  log        string
-- KEYS[2]  meta       hash of the workflow: created, retried, log, refs, fence, lease_until, expires,
--                     sliding, touched
-- KEYS[3]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[5]  queues     hash of how many workflows each queue of the partition has
-- KEYS[6]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[7]  partition  hash of the partition: made, counts, position, and the replies to retries
-- KEYS[8]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[9]  refs       sorted set of the hashes of the facts that the workflow refers to, by the last cursor that does;
--          then, for each fact that is not stored already, its bucket, and the bucket's sorted set of times
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  log
-- ARGV[6]  the caller's time (Unix microseconds)
-- ARGV[7]  how many facts it refers to
-- ARGV[8]  '1' if these are stored already, or ''; then, for each fact, its hash, and its value, or '' for one that
--          must be stored already
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, percent-encoded>; OTHER_KEY <place> <key>; FACT_MISSING <hash>; DAMAGED <what>;
--          NEW_PARTITION; END_REACHED

--@include numbers
--@include clock
--@include meta
--@include partition
--@include index
--@include sliding
--@include calls
--@include replies
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include lease
--@include facts
--@include feed

local log, meta_key, index, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queues, queue, partition, feed, refs = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local workflow, call_id, retry, by_lease, data, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local facts, ahead = tonumber(ARGV[7]), ARGV[8] ~= ''

-- The places of the first fact, and of the sorted set of references.
local FIRST_FACT, REFS = 9, 9

local meta = redis.call('HMGET', meta_key, 'created', 'retried', 'expires', 'sliding')
if retry ~= '' or meta[2] or not meta[1] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
if not as_count(meta[3]) then return redis.error_reply('DAMAGED meta hash') end
local micros, ms = now()
if is_over(meta[3], math.max(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end

local lease = lease_of(by_lease, workflow, meta_key, leases, queues, queue, 6)

local function act()
  local problem = lease_error(lease)
  -- SET replaces a value of any type. Reading each key first rejects a foreign value.
  redis.call('STRLEN', log)
  redis.call('ZCARD', refs)
  local top = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  problem = problem or not meta[1] and meta_error(index, workflow)
  problem = problem or facts_error(FIRST_FACT, REFS, facts, ahead, meta_key)
  local retried
  if not problem and not meta[1] then problem, retried = partition_error(partition) end
  if not problem and not meta[1] then problem = feed_error(feed, index, partition) end
  if problem then return problem end
  if not meta[1] then
    redis.call('HSET', meta_key, 'created', int(micros))
    add_to_feed(feed, index, partition, ms, 1, '0', 0, workflow)
  end
  redis.call('HSET', meta_key, 'log', '1')
  if retried then redis.call('HSET', meta_key, 'retried', '1') end
  meta[1] = true
  redis.call('SET', log, data)
  store_facts(FIRST_FACT, REFS, facts, ahead, math.max(micros, tonumber(caller_us)), meta_key, 'inf')
  local score = next_score(top, micros, caller_us)
  touch_index(index, partition, score, workflow)
  note_touch(meta_key, meta[4], score, caller_us)
  extend_used_lease(lease, ms)
  return 1
end

local reply = act()
if retry ~= '' and reply ~= 'NEW_PARTITION ' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return as_reply(reply)
