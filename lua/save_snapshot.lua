-- Save a workflow's snapshot, its cursor and its data in one step.
--
-- KEYS[1]  snapshot   hash: cursor, time (Unix milliseconds), data, refs
-- KEYS[2]  meta       hash of the workflow: cursor, created, retried, snapshot, refs, fence, lease_until,
--                     expires, sliding, touched
-- KEYS[3]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[5]  queues     hash of how many workflows each queue of the partition has
-- KEYS[6]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[7]  partition  hash of the partition: made, counts, position, and the replies to retries
-- KEYS[8]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[9]  refs       sorted set of the hashes of the facts that the workflow refers to, by the last cursor that does;
--          then, for each of the facts below that is not known to be stored, its bucket, and the bucket's sorted set
--          of times
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  the cursor that the snapshot stands for
-- ARGV[6]  data
-- ARGV[7]  the caller's time (Unix microseconds)
-- ARGV[8]  '1' if the next one tells to which facts the state refers, or ''
-- ARGV[9]  the hashes of these facts, see snapshot_refs
-- ARGV[10] how many of them follow: none, or all if the workflow may not refer to some of them yet
-- ARGV[11] '1' if those that follow are known to be stored, or ''; then, for each of them, its hash, and ''
-- Reply    integer: the snapshot's cursor
-- Errors   REFS_UNKNOWN, if the workflow refers to some of the facts not yet, and they do not follow;
--          FACT_MISSING <hash>; SNAPSHOT_AHEAD <the workflow's cursor>;
--          SNAPSHOT_BEHIND <the cursor of the stored snapshot>; LEASE_LOST <owner, percent-encoded>;
--          OTHER_KEY <place> <key>; DAMAGED <what>; NEW_PARTITION; END_REACHED
--
-- The meta hash has the cursor of the last snapshot, so that the loss of a snapshot is noticed. Another one may
-- replace the lost one.
--
-- A fact that the snapshot alone refers to is among the workflow's references with the score 0.

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
--@include snapshot_refs
--@include snapshot_facts
--@include feed

local snapshot, meta_key, index, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queues, queue, partition, feed = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local refs = KEYS[9]
local workflow, call_id, retry, by_lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted, data, caller_us = ARGV[5], ARGV[6], ARGV[7]
local packed, facts, ahead = ARGV[8] ~= '' and ARGV[9], tonumber(ARGV[10]), ARGV[11] ~= ''

-- The places of the first fact, and of the sorted set of references.
local FIRST_FACT, REFS = 12, 9

local meta = redis.call('HMGET', meta_key, 'cursor', 'created', 'retried', 'expires', 'snapshot', 'sliding')
local cursor = as_count(meta[1])
local stored = redis.call('HGET', snapshot, 'cursor') or meta[5]
if not cursor or not as_count(stored) then return redis.error_reply('DAMAGED cursor') end
if not as_count(meta[4]) then return redis.error_reply('DAMAGED meta hash') end
if retry ~= '' or meta[3] or not meta[2] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[4], math.max(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end

local lease = lease_of(by_lease, workflow, meta_key, leases, queues, queue, 6)

local function act()
  local problem = lease_error(lease)
  problem = problem or not meta[2] and meta_error(index, workflow)
  if problem then return problem end
  if tonumber(wanted) > cursor then return 'SNAPSHOT_AHEAD ' .. int(cursor) end
  if stored ~= meta[5] then return 'DAMAGED snapshot' end
  if tonumber(wanted) < as_count(stored) then return 'SNAPSHOT_BEHIND ' .. stored end
  problem = packed and snapshot_refs_error(packed, refs, meta_key, FIRST_FACT, facts)
  problem = problem or facts_error(FIRST_FACT, REFS, facts, ahead, meta_key)
  if problem then return problem end
  local top = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  local retried
  if not meta[2] then problem, retried = partition_error(partition) end
  if not meta[2] and not problem then problem = feed_error(feed, index, partition) end
  if problem then return problem end

  redis.call('HSET', snapshot, 'cursor', wanted, 'time', int(ms), 'data', data)
  store_snapshot_refs(snapshot, packed)
  redis.call('HSET', meta_key, 'snapshot', wanted)
  if not meta[2] then
    redis.call('HSET', meta_key, 'created', int(micros))
    add_to_feed(feed, index, partition, ms, 1, '0', 0, workflow)
  end
  if retried then redis.call('HSET', meta_key, 'retried', '1') end
  meta[2] = true
  store_facts(FIRST_FACT, REFS, facts, ahead, math.max(micros, tonumber(caller_us)), meta_key, '0')
  local score = next_score(top, micros, caller_us)
  touch_index(index, partition, score, workflow)
  note_touch(meta_key, meta[6], score, caller_us)
  extend_used_lease(lease, ms)
  return tonumber(wanted)
end

local reply = act()
if retry ~= '' and reply ~= 'NEW_PARTITION ' then keep_reply(partition, call_id, reply, meta_key, meta[2]) end
return as_reply(reply)
