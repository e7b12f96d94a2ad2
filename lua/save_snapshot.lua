-- Saves a workflow's snapshot, its cursor and its data in one step.
--
-- KEYS[1]  snapshot  hash: cursor, time (Unix milliseconds), data
-- KEYS[2]  meta      hash of the workflow: cursor, created, retried, fence, lease_until, expires
-- KEYS[3]  commits   hash of the ids of retried calls
-- KEYS[4]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[5]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try, on a retry the milliseconds since it
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  cursor that the snapshot stands for
-- ARGV[6]  data
-- Reply    integer: the snapshot's cursor
-- Errors   SNAPSHOT_AHEAD <the workflow's cursor>, SNAPSHOT_BEHIND <the cursor of the snapshot that is there>,
--          LEASE_LOST <owner>, DAMAGED <what>
--
-- A retry is remembered, so that a first try that arrives after it does not undo what was saved since.

--@include clock
--@include numbers
--@include lease

local meta = redis.call('HMGET', KEYS[2], 'cursor', 'created', 'retried', 'fence', 'expires')
local cursor = whole(meta[1])
local present = whole(redis.call('HGET', KEYS[1], 'cursor'))
local wanted = tonumber(ARGV[5])
if not cursor or not present then return redis.error_reply('DAMAGED cursor') end
if not whole(meta[5]) then return redis.error_reply('DAMAGED meta hash') end
if (meta[3] or ARGV[3] ~= '') and redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return wanted end
local refusal = refused(ARGV[4], meta[4], KEYS[2], KEYS[5])
if refusal then return redis.error_reply(refusal) end
if wanted > cursor then return redis.error_reply('SNAPSHOT_AHEAD ' .. int(cursor)) end
if wanted < present then return redis.error_reply('SNAPSHOT_BEHIND ' .. int(present)) end

redis.call('ZSCORE', KEYS[4], ARGV[1])
local micros, ms = now()
redis.call('HSET', KEYS[1], 'cursor', ARGV[5], 'time', int(ms), 'data', ARGV[6])
if not meta[2] then redis.call('HSET', KEYS[2], 'created', int(micros)) end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[5])
  redis.call('HSET', KEYS[2], 'retried', '1')
end
redis.call('ZADD', KEYS[4], int(micros), ARGV[1])
renew(ARGV[4], ms, ARGV[1], KEYS[2], KEYS[5])
if meta[5] then
  redis.call('PEXPIREAT', KEYS[1], meta[5])
  redis.call('PEXPIREAT', KEYS[3], meta[5])
end
return wanted
