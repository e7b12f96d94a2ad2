-- Saves a workflow's snapshot, its cursor and its data in one step.
--
-- KEYS[1]  snapshot   hash: cursor, time (Unix milliseconds), data
-- KEYS[2]  meta       hash of the workflow: cursor, created, retried, snapshot, fence, lease_until, expires
-- KEYS[3]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[5]  partition  hash of the partition: made, counts, leased, and the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  cursor that the snapshot stands for
-- ARGV[6]  data
-- ARGV[7]  the caller's time (Unix microseconds)
-- Reply    integer: the snapshot's cursor
-- Errors   SNAPSHOT_AHEAD <the workflow's cursor>, SNAPSHOT_BEHIND <the cursor of the snapshot that is there>,
--          LEASE_LOST <owner, spelled>, DAMAGED <what>; NEW_PARTITION, END_REACHED
--
-- The meta hash has the cursor of the last snapshot, so that a snapshot that was lost is noticed. Another may take its
-- place.

--@include numbers
--@include clock
--@include lost
--@include partition
--@include index
--@include calls
--@include replies
--@include owner
--@include lease

local meta = redis.call('HMGET', KEYS[2], 'cursor', 'created', 'retried', 'fence', 'expires', 'snapshot')
local cursor = whole(meta[1])
local present = redis.call('HGET', KEYS[1], 'cursor') or meta[6]
local wanted = tonumber(ARGV[5])
if not cursor or not whole(present) then return redis.error_reply('DAMAGED cursor') end
if not whole(meta[5]) then return redis.error_reply('DAMAGED meta hash') end
if ARGV[3] ~= '' or meta[3] or not meta[2] then
  local reply = remembered(KEYS[5], ARGV[2])
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[5], math.max(micros, tonumber(ARGV[7]))) then return redis.error_reply('END_REACHED ') end

local function act()
  local refusal = refused(ARGV[4], meta[4], KEYS[2], KEYS[4])
  refusal = refusal or not meta[2] and lost_meta(KEYS[3], ARGV[1])
  if refusal then return refusal end
  if wanted > cursor then return 'SNAPSHOT_AHEAD ' .. int(cursor) end
  if present ~= meta[6] then return 'DAMAGED snapshot' end
  if wanted < whole(present) then return 'SNAPSHOT_BEHIND ' .. present end
  local top = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  local retried
  if not meta[2] then refusal, retried = partition_state(KEYS[5]) end
  if refusal then return refusal end

  redis.call('HSET', KEYS[1], 'cursor', ARGV[5], 'time', int(ms), 'data', ARGV[6])
  redis.call('HSET', KEYS[2], 'snapshot', ARGV[5])
  if not meta[2] then redis.call('HSET', KEYS[2], 'created', int(micros)) end
  if retried then redis.call('HSET', KEYS[2], 'retried', '1') end
  meta[2] = true
  touch_index(KEYS[3], KEYS[5], next_score(top, micros, ARGV[7]), ARGV[1])
  renew(ARGV[4], ms, ARGV[1], KEYS[2], KEYS[4], KEYS[5])
  return wanted
end

local reply = act()
if ARGV[3] ~= '' and reply ~= 'NEW_PARTITION ' then remember(KEYS[5], ARGV[2], reply, KEYS[2], meta[2]) end
return as_reply(reply)
