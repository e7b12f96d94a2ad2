-- Saves a workflow's whole log over the one before.
--
-- KEYS[1]  log        string
-- KEYS[2]  meta       hash of the workflow: created, retried, log, refs, fence, lease_until, expires
-- KEYS[3]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[5]  partition  hash of the partition: made, counts, leased, and the replies to retries
-- KEYS[6]  refs       set of the hashes of the facts that the workflow refers to; then, for each fact, its bucket, and the
--          bucket's sorted set of times
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  log
-- ARGV[6]  the caller's time (Unix microseconds)
-- ARGV[7]  how many facts it refers to
-- ARGV[8]  '1' if these are stored already, or ''; then, for each, its hash, and its value, or '' for one that must be there
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, spelled>, FACT_MISSING <hash>, DAMAGED <what>; NEW_PARTITION, END_REACHED

--@include numbers
--@include clock
--@include lost
--@include partition
--@include index
--@include calls
--@include replies
--@include owner
--@include lease
--@include facts

local count, elsewhere = tonumber(ARGV[7]), ARGV[8] ~= ''
local meta = redis.call('HMGET', KEYS[2], 'created', 'retried', 'fence', 'expires')
if ARGV[3] ~= '' or meta[2] or not meta[1] then
  local reply = remembered(KEYS[5], ARGV[2])
  if reply ~= nil then return as_reply(reply) end
end
if not whole(meta[4]) then return redis.error_reply('DAMAGED meta hash') end
local micros, ms = now()
if is_over(meta[4], math.max(micros, tonumber(ARGV[6]))) then return redis.error_reply('END_REACHED ') end

local function act()
  local refusal = refused(ARGV[4], meta[3], KEYS[2], KEYS[4])
  -- SET would replace a foreign value of any type; reading first refuses it.
  redis.call('STRLEN', KEYS[1])
  redis.call('SCARD', KEYS[6])
  local top = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  refusal = refusal or not meta[1] and lost_meta(KEYS[3], ARGV[1])
  refusal = refusal or unkeepable(9, 6, count, elsewhere, KEYS[2])
  local retried
  if not refusal and not meta[1] then refusal, retried = partition_state(KEYS[5]) end
  if refusal then return refusal end
  redis.call('HSETNX', KEYS[2], 'created', int(micros))
  redis.call('HSET', KEYS[2], 'log', '1')
  if retried then redis.call('HSET', KEYS[2], 'retried', '1') end
  meta[1] = true
  redis.call('SET', KEYS[1], ARGV[5])
  keep(9, 6, count, elsewhere, math.max(micros, tonumber(ARGV[6])), KEYS[2])
  touch_index(KEYS[3], KEYS[5], next_score(top, micros, ARGV[6]), ARGV[1])
  renew(ARGV[4], ms, ARGV[1], KEYS[2], KEYS[4], KEYS[5])
  return 1
end

local reply = act()
if ARGV[3] ~= '' and reply ~= 'NEW_PARTITION ' then remember(KEYS[5], ARGV[2], reply, KEYS[2], meta[1]) end
return as_reply(reply)
