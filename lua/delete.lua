-- Delete a workflow: all of its keys, and its place in the partition's sorted sets.
--
-- KEYS[1]   events
-- KEYS[2]   meta       hash of the workflow: created, retried, fence, queue, expires
-- KEYS[3]   snapshot
-- KEYS[4]   log
-- KEYS[5]   commits
-- KEYS[6]   refs       sorted set of the hashes of the facts that it refers to, by the last cursor that does
-- KEYS[7]   inbox      stream of the messages that no commit has consumed
-- KEYS[8]   messages   hash of the message ids that senders gave
-- KEYS[9]   index      sorted set of the partition's workflows by the time of their last write
-- KEYS[10]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[11]  queues     hash of how many workflows each queue of the partition has
-- KEYS[12]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[13]  parked     sorted set of the partition's parked workflows by the time of that
-- KEYS[14]  expiring   sorted set of the partition's workflows that expire, by when
-- KEYS[15]  completed  sorted set of the partition's completed workflows by the time of that
-- KEYS[16]  partition  hash of the partition: counts, position, and the replies to retries
-- KEYS[17]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[18…] labels     sorted sets of workflows by when they were created: with its attributes, and with its parent
-- ARGV[1]   workflow id
-- ARGV[2]   when the workflow to delete was created, or '' if it has no such time. A workflow that was created under
--           this id at another time stays
-- ARGV[3]   lease, '<fencing token> <milliseconds>', or ''
-- ARGV[4]   for a workflow that is deleted because it is over, when it expires; else ''. A workflow with another end
--           stays
-- ARGV[5]   id of this call: an imported workflow has the time of creation that it had before
-- ARGV[6]   '' on a first try
-- Reply     integer: 1 if it was deleted, 0 if there was none to delete
-- Errors    LEASE_LOST <owner, percent-encoded>; OTHER_KEY <place> <key>, also for a further key; DAMAGED <what>

--@include numbers
--@include members
--@include calls
--@include replies
--@include owner
--@include clock
--@include lease_time
--@include queue
--@include other_key
--@include lease
--@include feed
--@include labels

local events, meta_key, snapshot, log, commits, refs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local inbox, messages, index, leases, queues, queue = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local parked, expiring, completed, partition, feed = KEYS[13], KEYS[14], KEYS[15], KEYS[16], KEYS[17]
local first_label = 18
local workflow, created, by_lease, expires, call_id, retry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local meta = redis.call('HMGET', meta_key, 'created', 'queue', 'expires', 'retried')
if retry ~= '' or meta[4] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end

-- Return the error that names a label's set which is not among the keys, or that rejects a foreign value; or nothing.
local function labels_error()
  local given = {}
  for place = first_label, #KEYS do
    local set = KEYS[place]
    redis.call('ZCARD', set)
    given[set] = true
  end
  local fields = redis.call('HGETALL', meta_key)
  for at = 1, #fields, 2 do
    if fields[at] == 'parent' or string.sub(fields[at], 1, 2) == 'a:' then
      local set = label_set(queues, fields[at], fields[at + 1])
      if not given[set] then return other_key(#KEYS + 1, set) end
    end
  end
end

local function act()
  if (meta[1] or '') ~= created or (expires ~= '' and meta[3] ~= expires) then return 0 end
  local problem = queue_error(queues, queue, meta[2], 12)
    or meta[1] and lease_error(lease_of(by_lease, workflow, meta_key, leases, queues, queue, 12))
  problem = problem or feed_error(feed, index, partition) or labels_error()
  if problem then return problem end
  -- UNLINK deletes a value of any type. Reading each key first rejects a foreign value.
  redis.call('XLEN', events)
  redis.call('HLEN', snapshot)
  redis.call('STRLEN', log)
  redis.call('HLEN', commits)
  redis.call('ZCARD', refs)
  redis.call('XLEN', inbox)
  redis.call('HLEN', messages)
  redis.call('ZCARD', index)
  redis.call('ZCARD', leases)
  redis.call('ZCARD', parked)
  redis.call('ZCARD', expiring)
  redis.call('ZCARD', completed)
  redis.call('HLEN', partition)
  -- UNLINK first: if the user may not use it, nothing is changed.
  redis.call('UNLINK', events, meta_key, snapshot, log, commits, refs, inbox, messages)
  local was_indexed = redis.call('ZREM', index, workflow) == 1
  if was_indexed then redis.call('HINCRBY', partition, 'workflows', -1) end
  if meta[1] or was_indexed then
    local _, ms = now()
    add_to_feed(feed, index, partition, ms, 1, 'deleted', 0, workflow)
  end
  remove_from_queue(queues, queue, workflow)
  redis.call('ZREM', leases, workflow)
  remove_member(parked, workflow, partition, 'parked')
  remove_member(completed, workflow, partition, 'completed')
  redis.call('ZREM', expiring, workflow)
  for place = first_label, #KEYS do
    local set = KEYS[place]
    redis.call('ZREM', set, workflow)
  end
  return 1
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, false) end
return as_reply(reply)
