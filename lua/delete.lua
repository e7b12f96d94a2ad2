-- Delete a workflow: all of its keys, and its place in the partition's sorted sets. Or delete it only if it is over.
--
-- KEYS[1]   events
-- KEYS[2]   meta       hash of the workflow: created, retried, fence, queue, expires, sliding,
--                      touched, imported, imported_to
-- KEYS[3]   snapshot
-- KEYS[4]   log
-- KEYS[5]   commits
-- KEYS[6]   refs       sorted set of the hashes of the facts that it refers to, by the last cursor that does
-- KEYS[7]   inbox      stream of the messages that no commit has consumed
-- KEYS[8]   messages   hash of the message ids that senders gave
-- KEYS[9]   tags       sorted set of its tags, see lua/find.lua
-- KEYS[10]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[11]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[12]  queues     hash of how many workflows each queue of the partition has
-- KEYS[13]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[14]  parked     sorted set of the partition's parked workflows by the time of that
-- KEYS[15]  expiring   sorted set of the partition's workflows that expire, by when
-- KEYS[16]  completed  sorted set of the partition's completed workflows by the time of that
-- KEYS[17]  partition  hash of the partition: counts, position, and the replies to retries
-- KEYS[18]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[19]  tagged     index of all tags, see lua/find_where.lua; the tags again, if the namespace has none
-- KEYS[20]  touch      a key that never holds anything
-- KEYS[21…] labels     sorted sets of workflows by when they were created: with its attributes, and with its parent
-- ARGV[1]   workflow id
-- ARGV[2]   when the workflow to delete was created, or '' if it has no such time. A workflow that was created under
--           this id at another time stays
-- ARGV[3]   lease, '<fencing token> <milliseconds>', or ''
-- ARGV[4]   for a workflow that is deleted because it is over, `expires` as it was read; else ''. A workflow with
--           another one stays
-- ARGV[5]   then, the time that both clocks have reached (Unix milliseconds). A workflow whose lifetime was extended
--           by a write stays, and `expires` moves to its end
-- ARGV[6]   id of this call: an imported workflow has the time of creation that it had before
-- ARGV[7]   '' on a first try
-- Reply     integer: 1 if it was deleted, 0 if there was none to delete, 2 if `expires` has moved, 3 if only some of
--           its tags were removed from the index of all tags: call again
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
--@include sliding
--@include tags

local events, meta_key, snapshot, log, commits, refs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local inbox, messages, tags, index = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local leases, queues, queue, parked, expiring = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15]
local completed, partition, feed, tagged, touch = KEYS[16], KEYS[17], KEYS[18], KEYS[19], KEYS[20]
local workflow, created, by_lease, expires, reached_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local call_id, retry = ARGV[6], ARGV[7]

-- How many tags one call removes from the index of all tags.
local MOST_UNTAGGED = 4096

-- The workflow's own keys, each with a command that rejects a foreign value: UNLINK deletes a value of any type.
local own = {
  {'XLEN', events}, {'HLEN', meta_key}, {'HLEN', snapshot}, {'STRLEN', log}, {'HLEN', commits}, {'ZCARD', refs},
  {'XLEN', inbox}, {'HLEN', messages}, {'ZCARD', tags},
}
-- The partition's sorted sets in which it may stand, beside the index and its queue; and for those that are counted,
-- the field of the partition's hash.
local sets = {{leases}, {parked, 'parked'}, {completed, 'completed'}, {expiring}}
local key = 21
while true do
  local set = unpack(KEYS, key, key)
  if not set then break end
  key, sets[#sets + 1] = key + 1, {set}
end

local meta = redis.call('HMGET', meta_key, 'created', 'queue', 'expires', 'retried', 'sliding', 'touched')
if retry ~= '' or meta[4] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end

-- Return the error that names a set in which the workflow stands by a label, and which is not among the keys; or
-- nothing.
local function labels_error()
  local given = {}
  for _, pair in ipairs(sets) do given[pair[1]] = true end
  local fields = redis.call('HGETALL', meta_key)
  for at = 1, #fields, 2 do
    if fields[at] == 'parent' or string.sub(fields[at], 1, 2) == 'a:' then
      local set = label_set(queues, fields[at], fields[at + 1])
      if not given[set] then return other_key(#KEYS + 1, set) end
    end
  end
end

-- Remove tags from the index of all tags, entry by entry. Return whether more are left.
local function untag()
  local left = MOST_UNTAGGED
  local imported, imported_to = unpack(redis.call('HMGET', meta_key, 'imported', 'imported_to'))
  while left > 0 do
    local member = redis.call('ZRANGE', tags, 0, 0)[1]
    if not member then return false end
    local cursor = string.match(string.sub(member, -16), '[1-9]%d*$') or '0'
    local entry = redis.call('XRANGE', events, cursor, cursor)[1]
    local removed = entry and remove_entry_tags(entry, workflow, tags, tagged, imported, imported_to) or 0
    removed = removed + redis.call('ZREM', tags, member)
    if redis.call('HINCRBY', meta_key, 'tags', -removed) <= 0 then redis.call('HDEL', meta_key, 'tags') end
    left = left - removed
  end
  return redis.call('ZCARD', tags) > 0
end

local function act()
  if (meta[1] or '') ~= created or (expires ~= '' and meta[3] ~= expires) then return 0 end
  local problem = queue_error(queues, queue, meta[2], 13)
    or meta[1] and lease_error(lease_of(by_lease, workflow, meta_key, leases, queues, queue, 13))
  problem = problem or feed_error(feed, index, partition) or labels_error()
  if problem then return problem end
  local names = {}
  for place, pair in ipairs(own) do
    redis.call(unpack(pair))
    names[place] = pair[2]
  end
  for _, pair in ipairs(sets) do redis.call('ZCARD', pair[1]) end
  redis.call('HLEN', partition)
  local score = redis.call('ZSCORE', index, workflow)
  if expires ~= '' then
    local ends = last_end(expires, meta[5], meta[6], score)
    if not ends then return 'DAMAGED meta hash' end
    if ends > tonumber(reached_ms) then
      if int(ends) == expires then return 0 end
      redis.call('HSET', meta_key, 'expires', int(ends))
      redis.call('ZADD', expiring, int(ends), workflow)
      return 2
    end
  end
  redis.call('ZCARD', tagged)
  -- UNLINK first: if the user may not use it, nothing is changed.
  if tagged ~= tags then
    redis.call('UNLINK', touch)
    if untag() then return 3 end
  end
  redis.call('UNLINK', unpack(names))
  local was_indexed = redis.call('ZREM', index, workflow) == 1
  if was_indexed then redis.call('HINCRBY', partition, 'workflows', -1) end
  if meta[1] or was_indexed then
    local _, ms = now()
    add_to_feed(feed, index, partition, ms, 1, 'deleted', 0, workflow)
  end
  remove_from_queue(queues, queue, workflow)
  for _, pair in ipairs(sets) do
    local set, field = unpack(pair)
    if field then remove_member(set, workflow, partition, field) else redis.call('ZREM', set, workflow) end
  end
  return 1
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, reply == 2) end
return as_reply(reply)
