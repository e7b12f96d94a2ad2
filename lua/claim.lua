-- Give an owner the leases of workflows that are due, in the order in which they are named.
--
-- KEYS[1…]  for each workflow:
--           meta       hash of the workflow: created, fence, lease_id, lease_until, lease_ms, completed, queue,
--                      attempts, woken, expires
--           queue      sorted set of the queue's workflows by when they are due
--           queues     hash of how many workflows each queue of the partition has
--           leases     sorted set of the partition's leased workflows by the end of their leases
--           parked     sorted set of the partition's parked workflows by the time of that
--           partition  hash of the partition: counts, fence, and the replies to retries
-- ARGV[1]   id of this call
-- ARGV[2]   '' on a first try
-- ARGV[3]   owner
-- ARGV[4]   how long the leases last, in milliseconds
-- ARGV[5]   the caller's time (Unix microseconds)
-- ARGV[6]   how many leases at most
-- ARGV[7]   how often a workflow may be claimed without progress before it is parked, or ''
-- ARGV[8…]  for each workflow, its id
-- Reply     array, for each workflow up to the last one that is leased: an array of its fencing token and the number
--           of the attempt; or a string: 'GONE', 'PARKED', 'ENDED', or an error
-- Errors    of a workflow: DAMAGED lease; and WRONGTYPE, in the words of Redis

--@include numbers
--@include clock
--@include members
--@include calls
--@include lease_time
--@include queue
--@include fence

local call_id, retry, owner, ttl_ms, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, most_attempts = tonumber(ARGV[6]), tonumber(ARGV[7])

local micros, ms = now()

-- Return the error that keeps a workflow from being claimed, or nothing.
local function foreign_value(queues, leases, parked, partition)
  local size = redis.pcall('HLEN', queues)
  if type(size) == 'number' then size = redis.pcall('ZCARD', leases) end
  if type(size) == 'number' then size = redis.pcall('ZCARD', parked) end
  if type(size) == 'number' then size = redis.pcall('HINCRBY', partition, 'parked', 0) end
  return type(size) == 'table' and size.err or nil
end

-- Claim a workflow. Return its token and the number of the attempt, or why it is not claimed.
local function claim(workflow, meta_key, queue, queues, leases, parked, partition)
  local meta = redis.pcall('HMGET', meta_key, 'created', 'fence', 'lease_id', 'lease_until', 'lease_ms', 'completed',
    'queue', 'attempts', 'expires')
  if meta.err then return meta.err end
  if meta[3] == call_id then return {tonumber(meta[2]), as_count(meta[8]) or 1} end
  local due = redis.pcall('ZSCORE', queue, workflow)
  if type(due) == 'table' then return due.err end
  local problem = foreign_value(queues, leases, parked, partition)
  if problem then return problem end
  if not due then return 'GONE' end
  if not meta[1] or meta[6] or meta[7] ~= queue_name(queues, queue) then
    -- A workflow that cannot be claimed must not stand before those that can.
    remove_from_queue(queues, queue, workflow)
    return 'GONE'
  end
  if is_over(meta[9], math.min(micros, tonumber(caller_us))) then return 'ENDED' end
  local ends, lasts, attempts = as_count(meta[4]), as_count(meta[5]), as_count(meta[8])
  local token = next_token(meta[2], partition, micros)
  if not (ends and lasts and attempts and token) then return 'DAMAGED lease' end
  local left = time_left(ends, lasts, ms)
  local was_set_back = ends > ms and left == 0
  if left > 0 or (tonumber(due) > ms and not was_set_back) then return 'GONE' end
  if most_attempts and attempts >= most_attempts then
    redis.call('HSET', meta_key, 'parked', int(ms), 'parked_reason', 'claimed ' .. int(attempts)
      .. ' times without progress', 'fence', int(tonumber(meta[2] or 0) + 1))
    redis.call('HDEL', meta_key, 'lease_id', 'lease_owner', 'lease_until', 'lease_ms')
    remove_from_queue(queues, queue, workflow)
    redis.call('ZREM', leases, workflow)
    add_member(parked, int(ms), workflow, partition, 'parked')
    return 'PARKED'
  end
  local lease_ends = give_lease(meta_key, partition, queues, token, call_id, owner, ttl_ms, ms)
  redis.call('HSET', meta_key, 'attempts', int(attempts + 1))
  redis.call('HDEL', meta_key, 'woken')
  redis.call('ZADD', queue, lease_ends, workflow)
  redis.call('ZADD', leases, lease_ends, workflow)
  return {token, attempts + 1}
end

local replies, claimed, key = {}, 0, 1
local at = 8
local first_partition, is_late
while true do
  local meta_key, queue, queues, leases, parked, partition = unpack(KEYS, key, key + 5)
  local workflow = ARGV[at]
  if not workflow or claimed == limit then break end
  if not first_partition then
    -- A first try that arrives after its retry claims nothing.
    is_late = retry == '' and type(redis.pcall('HGET', partition, 'c' .. call_id)) == 'string'
    first_partition = partition
  end
  local reply = is_late and 'GONE' or claim(workflow, meta_key, queue, queues, leases, parked, partition)
  if type(reply) == 'table' then claimed = claimed + 1 end
  replies[#replies + 1] = reply
  at, key = at + 1, key + 6
end
if retry ~= '' then keep_reply(first_partition, call_id, 1, first_partition, false) end
return replies
