-- Saves a workflow's snapshot, its cursor and its data in one step.
--
-- KEYS[1]  snapshot  hash: cursor, time (Unix milliseconds), data
-- KEYS[2]  meta      hash of the workflow: cursor, created
-- KEYS[3]  index     sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2]  cursor that the snapshot stands for
-- ARGV[3]  data
-- Reply    integer: the snapshot's cursor
-- Errors   SNAPSHOT_AHEAD <the workflow's cursor>, SNAPSHOT_BEHIND <the cursor of the snapshot that is there>,
--          DAMAGED <what>

local function int(number) return string.format('%.0f', number) end

local meta = redis.call('HMGET', KEYS[2], 'cursor', 'created')
local cursor = tonumber(meta[1] or '0')
local present = tonumber(redis.call('HGET', KEYS[1], 'cursor') or '0')
local wanted = tonumber(ARGV[2])
if not cursor or not present then return redis.error_reply('DAMAGED cursor') end
if wanted > cursor then return redis.error_reply('SNAPSHOT_AHEAD ' .. int(cursor)) end
if wanted < present then return redis.error_reply('SNAPSHOT_BEHIND ' .. int(present)) end

redis.call('ZSCORE', KEYS[3], ARGV[1])
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('HSET', KEYS[1], 'cursor', ARGV[2], 'time', int(math.floor(micros / 1000)), 'data', ARGV[3])
if not meta[2] then redis.call('HSET', KEYS[2], 'created', int(micros)) end
redis.call('ZADD', KEYS[3], int(micros), ARGV[1])
return wanted
