-- Deletes a workflow: every key of it, and its place in the partition's sorted sets.
--
-- KEYS[1]   events
-- KEYS[2]   meta       hash of the workflow: created, retried, fence, expires
-- KEYS[3]   snapshot
-- KEYS[4]   log
-- KEYS[5]   commits
-- KEYS[6]   refs       set of the hashes of the facts that it refers to
-- KEYS[7]   index      sorted set of the partition's workflows by the time of their last write
-- KEYS[8]   leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[9]   expiring   sorted set of the partition's workflows that expire, by when
-- KEYS[10]  partition  hash of the partition: counts, and the replies to retries
-- ARGV[1]   workflow id
-- ARGV[2]   when the workflow to be deleted was created, '' if it was not: one made under this id since then is another,
--           and stays
-- ARGV[3]   lease, '<fencing token> <milliseconds>', or ''
-- ARGV[4]   when it expires, for one that is deleted because it is over; '' for any. Another end, and it stays
-- ARGV[5]   id of this call: an import has the time of creation that the workflow had before
-- ARGV[6]   '' on a first try
-- Reply     integer: 1 if it was deleted, 0 if it was gone
-- Errors    LEASE_LOST <owner, spelled>

--@include numbers
--@include unfinished
--@include calls
--@include replies
--@include owner
--@include lease

local meta = redis.call('HMGET', KEYS[2], 'created', 'fence', 'expires', 'retried')
if ARGV[6] ~= '' or meta[4] then
  local reply = remembered(KEYS[10], ARGV[5])
  if reply ~= nil then return as_reply(reply) end
end

local function act()
  if (meta[1] or '') ~= ARGV[2] or (ARGV[4] ~= '' and meta[3] ~= ARGV[4]) then return 0 end
  local refusal = meta[1] and refused(ARGV[3], meta[2], KEYS[2], KEYS[8])
  if refusal then return refusal end
  -- UNLINK would delete a foreign value of any type; reading first refuses it.
  redis.call('XLEN', KEYS[1])
  redis.call('HLEN', KEYS[3])
  redis.call('STRLEN', KEYS[4])
  redis.call('HLEN', KEYS[5])
  redis.call('SCARD', KEYS[6])
  redis.call('ZCARD', KEYS[7])
  redis.call('ZCARD', KEYS[8])
  redis.call('ZCARD', KEYS[9])
  redis.call('HLEN', KEYS[10])
  -- UNLINK first: to a user who may not use it, nothing is done.
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
  if redis.call('ZREM', KEYS[7], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[10], 'workflows', -1) end
  drop_unfinished(KEYS[8], KEYS[10], ARGV[1])
  redis.call('ZREM', KEYS[9], ARGV[1])
  return 1
end

local reply = act()
if ARGV[6] ~= '' then remember(KEYS[10], ARGV[5], reply, KEYS[2], false) end
return as_reply(reply)
