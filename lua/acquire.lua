-- Gives somebody the lease of a workflow, and a fencing token that outdates every earlier one.
--
-- KEYS[1]  meta    hash of the workflow: created, fence, lease_id, lease_owner, lease_until, completed
-- KEYS[2]  index   sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases  sorted set of the partition's unfinished workflows by the end of their leases
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  owner
-- ARGV[4]  for how many milliseconds
-- ARGV[5]  'claim' for a workflow that somebody has left unfinished, '' for any
-- Reply    integer: the fencing token; or nil, of a claim, if somebody else was sooner
-- Errors   LEASE_HELD <milliseconds left> <owner>, DAMAGED <what>
--
-- Tokens follow the server's clock, so that one of an earlier life of the workflow is no token of a later one. A call
-- that is sent twice, or delivered late, has the same token.

--@include clock
--@include numbers

local meta = redis.call('HMGET', KEYS[1], 'fence', 'lease_id', 'lease_owner', 'lease_until', 'completed')
local fence, lasts = whole(meta[1]), whole(meta[4])
if not fence or not lasts then return redis.error_reply('DAMAGED lease') end
if meta[2] == ARGV[2] then return fence end
local micros, ms = now()
local left = lasts - ms
if ARGV[5] == 'claim' then
  -- What cannot be claimed must not stand before what can.
  if not meta[1] or meta[5] then redis.call('ZREM', KEYS[3], ARGV[1]) end
  if not meta[1] or meta[5] or left > 0 then return false end
elseif left > 0 and meta[3] ~= ARGV[3] then
  return redis.error_reply('LEASE_HELD ' .. int(left) .. ' ' .. (meta[3] or ''))
end
redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('ZCARD', KEYS[3])

local token = math.max(micros, fence + 1)
local ends = int(ms + tonumber(ARGV[4]))
if redis.call('HSETNX', KEYS[1], 'created', int(micros)) == 1 then redis.call('ZADD', KEYS[2], int(micros), ARGV[1]) end
redis.call('HSET', KEYS[1], 'fence', int(token), 'lease_id', ARGV[2], 'lease_owner', ARGV[3], 'lease_until', ends)
if not meta[5] then redis.call('ZADD', KEYS[3], ends, ARGV[1]) end
return token
