-- Create a workflow from what an import has gathered, in one step.
--
-- KEYS[1]   entries   what an import gathers, those that there are: a stream,
-- KEYS[2]   snapshot  a hash,
-- KEYS[3]   log       a string,
-- KEYS[4]   commits   a hash,
-- KEYS[5]   refs      a sorted set,
-- KEYS[6]   inbox     a stream,
-- KEYS[7]   messages  a hash,
-- KEYS[8]   tags      a sorted set,
-- KEYS[9]   gathered  a hash: begun, the id of the import that the others belong to
-- KEYS[10]  events    stream of the workflow, from the entries
-- KEYS[11]  snapshot  the others of the workflow, by the same names
-- KEYS[12]  log
-- KEYS[13]  commits
-- KEYS[14]  refs
-- KEYS[15]  inbox
-- KEYS[16]  messages
-- KEYS[17]  tags
-- KEYS[18]  meta      hash of the workflow
-- KEYS[19]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[20]  queue     sorted set of the queue's workflows by when they are due
-- KEYS[21]  expiring  sorted set of the partition's workflows that expire, by when
-- KEYS[22]  completed sorted set of the partition's completed workflows by the time of that
-- KEYS[23]  partition hash of the partition: made, counts, position
-- KEYS[24]  feed      stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[25]  queues    hash of how many workflows each queue of the partition has
-- KEYS[26]  parked    sorted set of the partition's parked workflows by the time of that
-- KEYS[27…] labels    sorted sets of workflows by when they were created: with its attributes, and with its parent
-- ARGV[1]   workflow id
-- ARGV[2]   id of the import
-- ARGV[3]   how many entries it has
-- ARGV[4]   the ID of the last one, '' if it has none
-- ARGV[5]   when it was last written to (Unix microseconds)
-- ARGV[6]   when it is due in its queue (Unix milliseconds, or 'inf'), '' if it is in none
-- ARGV[7]   when it expires (Unix milliseconds), or ''
-- ARGV[8]   when it was created (Unix microseconds)
-- ARGV[9…]  the other fields of its meta hash
-- Reply     integer: 1
-- Errors    WORKFLOW_EXISTS, if there is another of this id; IMPORT_LOST, if another import of it has begun since;
--           IMPORT_INCOMPLETE <how many entries there are>; DAMAGED <what>; NEW_PARTITION

--@include partition
--@include index
--@include members
--@include numbers
--@include clock
--@include feed
--@include queue

local gathered_entries, gathered_snapshot, gathered_log = KEYS[1], KEYS[2], KEYS[3]
local gathered_commits, gathered_refs, gathered_inbox, gathered_messages = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local gathered_tags, gathered = KEYS[8], KEYS[9]
local events, snapshot, log, commits, refs = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local inbox, messages, tags, meta_key = KEYS[15], KEYS[16], KEYS[17], KEYS[18]
local index, queue, expiring, completed = KEYS[19], KEYS[20], KEYS[21], KEYS[22]
local partition, feed, queues, parked = KEYS[23], KEYS[24], KEYS[25], KEYS[26]
local workflow, import_id, wanted, last_id, written_us = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local due, expires, created = ARGV[6], ARGV[7], ARGV[8]

local parts = {
  gathered_entries, gathered_snapshot, gathered_log, gathered_commits, gathered_refs, gathered_inbox,
  gathered_messages, gathered_tags,
}
local targets = {events, snapshot, log, commits, refs, inbox, messages, tags, meta_key}
-- Reject a foreign value before the first change.
redis.call('ZCARD', index)
redis.call('ZCARD', queue)
redis.call('HLEN', queues)
redis.call('ZCARD', parked)
redis.call('ZCARD', expiring)
redis.call('ZCARD', completed)
local labels, key = {}, 27
while true do
  local set = unpack(KEYS, key, key)
  if not set then break end
  redis.call('ZCARD', set)
  key, labels[#labels + 1] = key + 1, set
end
local problem, retried = partition_error(partition)
problem = problem or feed_error(feed, index, partition)
if problem then return redis.error_reply(problem) end
local is_current = redis.call('HGET', gathered, 'begun') == import_id
-- Return an error, and delete what this import has gathered.
local function reject(problem)
  if is_current then redis.call('UNLINK', gathered, unpack(parts)) end
  return redis.error_reply(problem)
end
if not is_current and redis.call('HGET', meta_key, 'created') == created and (last_id == ''
    or #redis.call('XRANGE', events, last_id, last_id) > 0) then
  return 1 -- this is a retry, or another import has created the same workflow
end
if redis.call('EXISTS', unpack(targets)) > 0 then return reject('WORKFLOW_EXISTS ') end
if not is_current then return reject('IMPORT_LOST ') end
local last = redis.call('XREVRANGE', gathered_entries, '+', '-', 'COUNT', 1)[1]
local count = redis.call('XLEN', gathered_entries)
if count ~= wanted or (last and last[1] or '') ~= last_id then return reject('IMPORT_INCOMPLETE ' .. count) end

for place, part in ipairs(parts) do
  if redis.call('EXISTS', part) == 1 then
    redis.call('PERSIST', part)
    redis.call('RENAME', part, targets[place])
  end
end
redis.call('UNLINK', gathered)
redis.call('HSET', meta_key, 'created', created, unpack(ARGV, 9))
-- The fields of the meta hash that depend on the other keys.
local id_count, ref_count = redis.call('HLEN', commits), redis.call('ZCARD', refs)
local tag_count = redis.call('ZCARD', tags)
if id_count > 0 then redis.call('HSET', meta_key, 'ids', id_count) end
if ref_count > 0 then redis.call('HSET', meta_key, 'refs', ref_count) end
if tag_count > 0 then redis.call('HSET', meta_key, 'tags', tag_count) end
local waiting, message_ids, cancels = redis.call('XLEN', inbox), redis.call('HLEN', messages), 0
for _, message in ipairs(waiting > 0 and redis.call('XRANGE', inbox, '-', '+') or {}) do
  if message[2][#message[2] - 1] == 'c' then cancels = cancels + 1 end
end
if waiting > 0 then redis.call('HSET', meta_key, 'inbox', waiting) end
if cancels > 0 then redis.call('HSET', meta_key, 'cancel', cancels) end
if message_ids > 0 then redis.call('HSET', meta_key, 'messages', message_ids) end
local snapshot_cursor = redis.call('HGET', snapshot, 'cursor')
if snapshot_cursor then redis.call('HSET', meta_key, 'snapshot', snapshot_cursor) end
if redis.call('STRLEN', log) > 0 then redis.call('HSET', meta_key, 'log', '1') end
if retried then redis.call('HSET', meta_key, 'retried', '1') end
touch_index(index, partition, written_us, workflow)
-- One entry of the feed stands for all of its events. The meta hash notes which: their times are from another server.
local cursor, trimmed = unpack(redis.call('HMGET', meta_key, 'cursor', 'trimmed'))
local held = (as_count(cursor) or 0) - (as_count(trimmed) or 0)
local _, ms = now()
local position = held > 0 and add_to_feed(feed, index, partition, ms, held, '+' .. int(held), cursor, workflow)
  or add_to_feed(feed, index, partition, ms, 1, '0', 0, workflow)
if position then redis.call('HSET', meta_key, 'imported', int(position), 'imported_to', cursor or '0') end
local completed_ms, parked_ms = unpack(redis.call('HMGET', meta_key, 'completed', 'parked'))
if completed_ms then
  add_member(completed, completed_ms, workflow, partition, 'completed')
elseif parked_ms then
  add_member(parked, parked_ms, workflow, partition, 'parked')
elseif due ~= '' then
  put_in_queue(queues, queue, workflow, due)
  hint(queues, queue, due == 'inf' and '+inf' or due, ms)
end
if expires ~= '' then redis.call('ZADD', expiring, expires, workflow) end
for _, set in ipairs(labels) do redis.call('ZADD', set, int(math.floor(tonumber(created) / 1000)), workflow) end
return 1
