-- Saves a workflow's whole log over the one before.
--
-- KEYS[1]  log    string
-- KEYS[2]  meta   hash of the workflow: created
-- KEYS[3]  index  sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2]  log
-- Reply    integer: 1
-- Errors   none of its own

local function int(number) return string.format('%.0f', number) end

-- SET would replace a foreign value of any type; reading first refuses it.
redis.call('STRLEN', KEYS[1])
redis.call('ZSCORE', KEYS[3], ARGV[1])
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('HSETNX', KEYS[2], 'created', int(micros))
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[3], int(micros), ARGV[1])
return 1
