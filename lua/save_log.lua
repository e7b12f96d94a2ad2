-- Saves a workflow's whole log over the one before.
--
-- KEYS[1]  log      string
-- KEYS[2]  meta     hash of the workflow: created, retried, fence, lease_until, expires
-- KEYS[3]  commits  hash of the ids of retried calls
-- KEYS[4]  index    sorted set of the partition's workflows by the time of their last write
-- KEYS[5]  leases   sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[6]  refs     set of the hashes of the facts that the workflow refers to; then, for each fact, its bucket, and the
--          bucket's sorted set of times
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try, on a retry the milliseconds since it
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  log
-- ARGV[6]  how many facts it refers to, with ' elsewhere' behind that if their keys are not given; then, for each, its
--          hash, and its value, or '' for one that must be there
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner>, FACT_MISSING <hash>, DAMAGED <what>
--
-- A retry is remembered, so that a first try that arrives after it does not undo what was saved since.

--@include clock
--@include numbers
--@include lease
--@include facts

local count, elsewhere = fact_count(ARGV[6])
local meta = redis.call('HMGET', KEYS[2], 'retried', 'fence', 'expires')
if (meta[1] or ARGV[3] ~= '') and redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return 1 end
if not whole(meta[3]) then return redis.error_reply('DAMAGED meta hash') end
local refusal = refused(ARGV[4], meta[2], KEYS[2], KEYS[5])
-- SET would replace a foreign value of any type; reading first refuses it.
redis.call('STRLEN', KEYS[1])
redis.call('ZSCORE', KEYS[4], ARGV[1])
refusal = refusal or unkeepable(7, 6, count, elsewhere)
if refusal then return redis.error_reply(refusal) end
local micros, ms = now()
redis.call('HSETNX', KEYS[2], 'created', int(micros))
redis.call('SET', KEYS[1], ARGV[5])
keep(7, 6, count, elsewhere, micros)
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[2], '0')
  redis.call('HSET', KEYS[2], 'retried', '1')
end
redis.call('ZADD', KEYS[4], int(micros), ARGV[1])
renew(ARGV[4], ms, ARGV[1], KEYS[2], KEYS[5])
if meta[3] then
  for _, key in ipairs({KEYS[1], KEYS[3], KEYS[6]}) do redis.call('PEXPIREAT', key, meta[3]) end
end
return 1
