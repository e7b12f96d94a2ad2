-- Gives an owner the lease of a workflow, and a fencing token that outdates every earlier one.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, fence, lease_id, lease_owner, lease_until, lease_ms,
--                     completed, expires
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  leases     sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[4]  partition  hash of the partition: made, counts, fence, leased, and the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  owner
-- ARGV[5]  for how many milliseconds
-- ARGV[6]  the caller's time (Unix microseconds)
-- ARGV[7]  'claim' for a workflow that was left unfinished, '' for any
-- Reply    integer: the fencing token; or nil, of a claim, if another was sooner
-- Errors   LEASE_HELD <milliseconds left> <owner, spelled>, DAMAGED <what>; NEW_PARTITION, END_REACHED
--
-- Tokens follow the server's clock and are above every earlier one of the partition, so that a lease of an earlier life of
-- the workflow fits none after it. A call that is sent twice, or delivered late, has the same token.

--@include numbers
--@include clock
--@include lost
--@include partition
--@include index
--@include unfinished
--@include calls
--@include replies
--@include owner

-- In microseconds.
local TEN_YEARS = 315360000000000

local meta = redis.call('HMGET', KEYS[1], 'fence', 'lease_id', 'lease_owner', 'lease_until', 'completed', 'created',
  'retried', 'lease_ms', 'expires')
local fence, ends, lasts, highest = whole(meta[1]), whole(meta[4]), whole(meta[8]), whole(redis.call('HGET', KEYS[4], 'fence'))
if not fence or not ends or not lasts or not highest then return redis.error_reply('DAMAGED lease') end
if ARGV[3] ~= '' or meta[7] or not meta[6] then
  local reply = remembered(KEYS[4], ARGV[2])
  if reply ~= nil then return as_reply(reply) end
end
if meta[2] == ARGV[2] then
  -- Another retry may arrive when the lease is given back.
  if ARGV[3] ~= '' then remember(KEYS[4], ARGV[2], fence, KEYS[1], true) end
  return fence
end
local micros, ms = now()
-- Only an import, from a server with another clock, brings a token above all others of the partition. One of another age
-- is damage, and must not become the partition's.
if fence > math.max(micros, highest) + TEN_YEARS then return redis.error_reply('DAMAGED lease') end
if is_over(meta[9], math.max(micros, tonumber(ARGV[6]))) and ARGV[7] == '' then return redis.error_reply('END_REACHED ') end

-- The milliseconds that a lease has left. More than it was given for means that the clock was set back: then it is over.
local function time_left(ends, lasts, ms)
  local left = ends - ms
  return left <= lasts and left or 0
end

local function act()
  local left = time_left(ends, lasts, ms)
  if ARGV[7] == 'claim' then
    -- What cannot be claimed must not stand before what can.
    if not meta[1] or meta[5] then drop_unfinished(KEYS[3], KEYS[4], ARGV[1]) end
    if not meta[1] or meta[5] or left > 0 then return false end
  elseif left > 0 and meta[3] ~= ARGV[4] then
    return 'LEASE_HELD ' .. int(left) .. ' ' .. spelled(meta[3])
  end
  local top = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  redis.call('ZCARD', KEYS[3])
  local problem, retried = not meta[6] and lost_meta(KEYS[2], ARGV[1])
  if not meta[6] and not problem then problem, retried = partition_state(KEYS[4]) end
  if problem then return problem end

  -- A user who may not count is rejected before anything is written.
  if not meta[5] then redis.call('HINCRBY', KEYS[4], 'unfinished', 0) end
  local token = math.max(micros, fence + 1, highest + 1)
  local lease_ends = int(ms + tonumber(ARGV[5]))
  if not meta[6] then
    redis.call('HSET', KEYS[1], 'created', int(micros))
    if retried then redis.call('HSET', KEYS[1], 'retried', '1') end
    touch_index(KEYS[2], KEYS[4], next_score(top, micros, ARGV[6]), ARGV[1])
    meta[6] = micros
  end
  redis.call('HSET', KEYS[1], 'fence', int(token), 'lease_id', ARGV[2], 'lease_owner', ARGV[4], 'lease_until', lease_ends,
    'lease_ms', ARGV[5])
  redis.call('HSET', KEYS[4], 'fence', int(token))
  note_lease(KEYS[4], ms)
  if not meta[5] then put_unfinished(KEYS[3], KEYS[4], lease_ends, ARGV[1]) end
  return token
end

local reply = act()
if ARGV[3] ~= '' and reply ~= 'NEW_PARTITION ' then remember(KEYS[4], ARGV[2], reply, KEYS[1], meta[6]) end
return as_reply(reply)
