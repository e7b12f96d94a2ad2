-- Saves a workflow's whole log over the one before.
--
-- KEYS[1]  log      string
-- KEYS[2]  meta     hash of the workflow: created, retried
-- KEYS[3]  commits  hash of the ids of retried calls
-- KEYS[4]  index    sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try, on a retry the milliseconds since it
-- ARGV[4]  log
-- Reply    integer: 1
-- Errors   none of its own
--
-- A retry is remembered, so that a first try that arrives after it does not undo what was saved since.

local function int(number) return string.format('%.0f', number) end

local retried = redis.call('HGET', KEYS[2], 'retried')
if (retried or ARGV[3] ~= '') and redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return 1 end
-- SET would replace a foreign value of any type; reading first refuses it.
redis.call('STRLEN', KEYS[1])
redis.call('ZSCORE', KEYS[4], ARGV[1])
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('HSETNX', KEYS[2], 'created', int(micros))
redis.call('SET', KEYS[1], ARGV[4])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[2], '0')
  redis.call('HSET', KEYS[2], 'retried', '1')
end
redis.call('ZADD', KEYS[4], int(micros), ARGV[1])
return 1
