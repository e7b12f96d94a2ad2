-- Saves a workflow's snapshot, its cursor and its data in one step.
--
-- KEYS[1]  snapshot  hash: cursor, time (Unix milliseconds), data
-- KEYS[2]  meta      hash of the workflow: cursor, created, retried
-- KEYS[3]  commits   hash of the ids of retried calls
-- KEYS[4]  index     sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try, on a retry the milliseconds since it
-- ARGV[4]  cursor that the snapshot stands for
-- ARGV[5]  data
-- Reply    integer: the snapshot's cursor
-- Errors   SNAPSHOT_AHEAD <the workflow's cursor>, SNAPSHOT_BEHIND <the cursor of the snapshot that is there>,
--          DAMAGED <what>
--
-- A retry is remembered, so that a first try that arrives after it does not undo what was saved since.

local function int(number) return string.format('%.0f', number) end

-- A count as it is kept: nothing is 0, and what is no count is nil.
local function whole(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end

local meta = redis.call('HMGET', KEYS[2], 'cursor', 'created', 'retried')
local cursor = whole(meta[1])
local present = whole(redis.call('HGET', KEYS[1], 'cursor'))
local wanted = tonumber(ARGV[4])
if not cursor or not present then return redis.error_reply('DAMAGED cursor') end
if (meta[3] or ARGV[3] ~= '') and redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return wanted end
if wanted > cursor then return redis.error_reply('SNAPSHOT_AHEAD ' .. int(cursor)) end
if wanted < present then return redis.error_reply('SNAPSHOT_BEHIND ' .. int(present)) end

redis.call('ZSCORE', KEYS[4], ARGV[1])
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('HSET', KEYS[1], 'cursor', ARGV[4], 'time', int(math.floor(micros / 1000)), 'data', ARGV[5])
if not meta[2] then redis.call('HSET', KEYS[2], 'created', int(micros)) end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
  redis.call('HSET', KEYS[2], 'retried', '1')
end
redis.call('ZADD', KEYS[4], int(micros), ARGV[1])
return wanted
