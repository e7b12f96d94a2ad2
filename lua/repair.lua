-- Repair the parts of a workflow that follow from its other parts, if it has not changed since it was verified.
--
-- KEYS[1]  meta      hash of the workflow
-- KEYS[2]  refs      sorted set of the hashes of the facts that it refers to, by the last cursor that does
-- KEYS[3]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases    sorted set of the partition's leased workflows by the end of their leases
-- KEYS[5]  expiring  sorted set of the partition's workflows that expire, by when
-- KEYS[6]  completed sorted set of the partition's completed workflows by the time of that
-- KEYS[7]  events    stream
-- KEYS[8]  commits   hash of the commit ids that callers gave
-- KEYS[9]  partition hash of the partition: counts
-- KEYS[10] parked    sorted set of the partition's parked workflows by the time of that
-- KEYS[11] queues    hash of how many workflows each queue of the partition has
-- KEYS[12] inbox     stream of the messages that no commit has consumed
-- KEYS[13] messages  hash of the ids of messages
-- KEYS[14] tags      sorted set of the workflow's tags, see lua/find.lua
-- KEYS[15…] set      sorted sets of the workflows of queues by when they are due, and of those with attributes or
--                    with parents by when they were created
-- ARGV[1]  workflow id
-- ARGV[2]  the verified cursor of the meta hash, '' if there was none
-- ARGV[3]  the verified ID of the stream's last entry, '' if there was none
-- ARGV[4]  the verified fencing token of the meta hash, '' if there was none
-- ARGV[5…] pairs of what to set and to what:
--          meta.cursor, meta.created, meta.largest, meta.snapshot, meta.log, meta.queue
--                                                    fields of the meta hash; '' removes one
--          count.refs, count.ids, count.messages, count.tags
--                                                    '': count the references, commit ids, message ids, or tags
--          count.inbox                               '': count the messages, and the requests to cancel among them
--          index, leases, expiring, completed, parked, queue:<name>, attribute:<name>=<value>, children:<parent>
--                                                    the workflow's score there, '' to remove it
--          refs                                      a score, a space, and the hash to give it to
--          commits                                   a cursor, a space, and a commit id to add
--          messages                                  the ID of an entry, a space, and a message id to add
--          tag.add, tag.remove                       a member of the set of tags
-- Reply    integer: 1 if it was repaired, 0 if the workflow has changed
-- Errors   none
--
-- A workflow that was lost from a sorted set is still counted. A workflow that was added to one by hand never was. So
-- the partition's count changes only where it would differ from the set otherwise.
--
-- A log may have been saved since the workflow was verified. So a reference with the score inf keeps it.

--@include numbers

local meta_key, refs, events, commits, partition = KEYS[1], KEYS[2], KEYS[7], KEYS[8], KEYS[9]
local index, leases, expiring, completed = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local parked, queues, inbox, messages, tags = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local workflow, cursor, last_id, fence = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local first_further = 15

local meta = redis.call('HMGET', meta_key, 'cursor', 'fence')
local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
if (meta[1] or '') ~= cursor or (last and last[1] or '') ~= last_id or (meta[2] or '') ~= fence then return 0 end
-- Reject a foreign value before the first change.
redis.call('ZCARD', refs)
redis.call('HLEN', commits)
redis.call('HLEN', queues)
redis.call('XLEN', inbox)
redis.call('HLEN', messages)
redis.call('ZCARD', tags)
local sets = {index = index, leases = leases, expiring = expiring, completed = completed, parked = parked}
-- The hash and the field that count the members of a sorted set.
local counts = {
  index = {partition, 'workflows'}, completed = {partition, 'completed'}, parked = {partition, 'parked'},
}
for place = first_further, #KEYS do
  local set = KEYS[place]
  -- The name of the key in the partition.
  local name = string.sub(set, #queues - 5)
  local queue = string.match(name, '^queue:(.*)$')
  sets[name], counts[name] = set, queue and {queues, queue}
end
for _, key in pairs(sets) do redis.call('ZCARD', key) end

-- Set the workflow's score in a sorted set, or remove the workflow from it.
local function set_score(name, score)
  local key, counter = sets[name], counts[name]
  local size = redis.call('ZCARD', key)
  local change = score == '' and -redis.call('ZREM', key, workflow) or redis.call('ZADD', key, score, workflow)
  if not counter or change == 0 then return end
  local counted = redis.pcall('HGET', unpack(counter))
  counted = type(counted) ~= 'table' and as_count(counted)
  if counted and (counted - size) * change <= 0 then redis.call('HINCRBY', counter[1], counter[2], change) end
end

-- Set a count of the meta hash, or remove it if nothing is counted.
local function set_count(field, count)
  if count > 0 then redis.call('HSET', meta_key, field, count) else redis.call('HDEL', meta_key, field) end
end

local function count_inbox()
  local cancels = 0
  for _, entry in ipairs(redis.call('XRANGE', inbox, '-', '+')) do
    if entry[2][#entry[2] - 1] == 'c' then cancels = cancels + 1 end
  end
  set_count('inbox', redis.call('XLEN', inbox))
  set_count('cancel', cancels)
end

for at = 5, #ARGV, 2 do
  local what, value = ARGV[at], ARGV[at + 1]
  local field = string.match(what, '^meta%.(%a+)$')
  if field and value == '' then
    redis.call('HDEL', meta_key, field)
  elseif field then
    redis.call('HSET', meta_key, field, value)
  elseif what == 'refs' then
    local place, hash = string.match(value, '^(%w+) (.*)$')
    if redis.call('ZSCORE', refs, hash) ~= 'inf' then redis.call('ZADD', refs, place, hash) end
  elseif what == 'count.refs' then
    redis.call('HSET', meta_key, 'refs', redis.call('ZCARD', refs))
  elseif what == 'commits' then
    local place, id = string.match(value, '^(%d+) (.*)$')
    redis.call('HSETNX', commits, id, place)
  elseif what == 'count.ids' then
    redis.call('HSET', meta_key, 'ids', redis.call('HLEN', commits))
  elseif what == 'messages' then
    local entry_id, id = string.match(value, '^(%S+) (.*)$')
    redis.call('HSETNX', messages, id, entry_id)
  elseif what == 'count.messages' then
    set_count('messages', redis.call('HLEN', messages))
  elseif what == 'tag.add' then
    -- Its commit may have been trimmed since.
    local place = string.match(value, '[1-9]%d*$')
    if redis.call('XRANGE', events, place, place, 'COUNT', 1)[1] then redis.call('ZADD', tags, 0, value) end
  elseif what == 'tag.remove' then
    redis.call('ZREM', tags, value)
  elseif what == 'count.tags' then
    set_count('tags', redis.call('ZCARD', tags))
  elseif what == 'count.inbox' then
    count_inbox()
  else
    set_score(what, value)
  end
end
return 1
