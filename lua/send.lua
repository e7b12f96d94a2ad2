-- Send a message to a workflow: add it to the workflow's inbox, and wake the workflow.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, completed, parked, queue, lease_until, lease_ms, woken,
--                     cancel, inbox, messages, sent, expires, sliding, touched
-- KEYS[2]  inbox      stream of the messages that no commit has consumed
-- KEYS[3]  messages   hash of the message ids that senders gave, and of the last calls without one, to the IDs of the
--                     entries
-- KEYS[4]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[5]  queues     hash of how many workflows each queue of the partition has
-- KEYS[6]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[7]  partition  hash of the partition: made, counts, position, and the replies to retries
-- KEYS[8]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  the caller's time (Unix microseconds)
-- ARGV[5]  message id, or ''
-- ARGV[6]  '1' to create the workflow if there is none, or ''
-- ARGV[7]  '1' for a request to cancel the workflow, or ''
-- ARGV[8]  the message's header, as of an entry of events
-- ARGV[9]  its payload
-- Reply    array of the ID of the message's entry in the inbox; nil if there is no such workflow
-- Errors   WORKFLOW_COMPLETED; OTHER_KEY <place> <key>; DAMAGED <what>; NEW_PARTITION; END_REACHED
--
-- A message whose id was sent before is not stored, whatever has become of the first one.

--@include numbers
--@include clock
--@include sliding
--@include meta
--@include partition
--@include index
--@include feed
--@include calls
--@include replies
--@include owner
--@include queue
--@include other_key

local meta_key, inbox, messages, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queues, queue, partition, feed = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local workflow, call_id, retry, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local message_id, keep, cancels, header, payload = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

-- How many of the last calls without a message id are known, for their retries. Their fields begin with a byte that no
-- message id has.
local MOST_SENT = 1024
local SENT = '\255'

-- Return a reply; the ID of an entry begins with a digit.
local function sent_reply(reply)
  if type(reply) == 'string' and string.find(reply, '^%d') then return {reply} end
  return as_reply(reply)
end

local meta = redis.call('HMGET', meta_key, 'created', 'retried', 'expires', 'completed', 'parked', 'queue',
  'lease_until', 'lease_ms', 'inbox', 'messages', 'sent', 'sliding')
if retry ~= '' or meta[2] or not meta[1] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return sent_reply(reply) end
end
local micros, ms = now()
local ends, lasts, waiting = as_count(meta[7]), as_count(meta[8]), as_count(meta[9])
local known, sent = as_count(meta[10]), as_count(meta[11])
if not (as_count(meta[3]) and ends and lasts and waiting and known and sent) then
  return redis.error_reply('DAMAGED meta hash')
end
if is_over(meta[3], math.max(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end

-- Return the ID of the entry of an earlier try, or of a message with the same id; or nothing.
local function earlier_entry()
  if message_id ~= '' then return redis.call('HGET', messages, message_id) end
  if retry == '' or sent == 0 then return nil end
  local fields = {}
  for number = 1, math.min(sent, MOST_SENT) do fields[number] = SENT .. int(number - 1) end
  for _, call in ipairs(redis.call('HMGET', messages, unpack(fields))) do
    if call and string.sub(call, 1, #call_id) == call_id then return string.sub(call, #call_id + 1) end
  end
end

-- Return the error that keeps the message from being stored, or nothing; and if the workflow must be created, whether
-- replies to retries are kept for it.
local function send_error()
  if redis.call('HLEN', messages) < known then return 'DAMAGED message ids' end
  if redis.call('XLEN', inbox) < waiting then return 'DAMAGED inbox' end
  if meta[1] then return queue_error(queues, queue, meta[6], 6) end
  local problem, retried = meta_error(index, workflow)
  if not problem then problem, retried = partition_error(partition) end
  return problem or feed_error(feed, index, partition), retried
end

local function create(retried)
  redis.call('HSET', meta_key, 'created', int(micros))
  if retried then redis.call('HSET', meta_key, 'retried', '1') end
  add_to_feed(feed, index, partition, ms, 1, '0', 0, workflow)
  meta[1] = true
end

-- Note the id of the message, or else of the call.
local function note_id(entry_id)
  local field, value = message_id, entry_id
  if message_id == '' then
    field, value = SENT .. int(sent % MOST_SENT), call_id .. entry_id
    redis.call('HINCRBY', meta_key, 'sent', 1)
  end
  if redis.call('HSET', messages, field, value) == 1 then redis.call('HINCRBY', meta_key, 'messages', 1) end
end

-- Make the workflow due now; a leased one, once the lease is released. Its holder may release it after its end, too.
local function wake()
  if meta[7] then redis.call('HSET', meta_key, 'woken', '1') end
  if meta[5] or not meta[6] or (ends > ms and ends - ms <= lasts) then return end
  local due = redis.call('ZSCORE', queue, workflow)
  if due and due ~= 'inf' and tonumber(due) <= ms then return end
  put_in_queue(queues, queue, workflow, int(ms))
  hint(queues, queue, int(ms), ms)
end

local function act()
  local reply = earlier_entry()
  if reply then return reply end
  if not (meta[1] or keep ~= '') then return false end
  if meta[4] then return 'WORKFLOW_COMPLETED ' end
  local top = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  local problem, retried = send_error()
  if problem then return problem end
  local fields = {header, payload}
  if message_id ~= '' then fields = {header, payload, 'i', message_id} end
  if cancels ~= '' then
    fields[#fields + 1] = 'c'
    fields[#fields + 1] = '1'
  end
  -- XADD first: if the user may not use it, nothing is changed.
  local entry_id = redis.call('XADD', inbox, '*', unpack(fields))
  if not meta[1] then create(retried) end
  redis.call('HINCRBY', meta_key, 'inbox', 1)
  if cancels ~= '' then redis.call('HINCRBY', meta_key, 'cancel', 1) end
  note_id(entry_id)
  local score = next_score(top, micros, caller_us)
  touch_index(index, partition, score, workflow)
  note_touch(meta_key, meta[12], score, caller_us)
  wake()
  return entry_id
end

local reply = act()
if retry ~= '' and reply ~= 'NEW_PARTITION ' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return sent_reply(reply)
