-- Return how many workflows a partition has: as its hash counts them, and as its sorted sets hold them.
--
-- KEYS[1]  partition  hash of the partition: made, workflows, parked, completed, position
-- KEYS[2]  index      sorted set of the partition's workflows by the time of their last write
-- KEYS[3]  parked     sorted set of the partition's parked workflows by the time of that
-- KEYS[4]  completed  sorted set of the partition's completed workflows by the time of that
-- KEYS[5]  feed       stream of the partition's commits; the index again, if the namespace has no feed
-- KEYS[6]  queues     hash of how many workflows each queue of the partition has
-- KEYS[7]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[8…] queue      with 'repair' or 'states', sorted sets of the workflows of queues by when they are due
-- ARGV[1]  'repair' to set the counts to the sizes of the sorted sets, and a position that is lost to that of the
--          feed's last entry; 'states' to count by time too; or ''
-- Reply    array: 1 if the partition was made, else 0; workflows counted, and in the index; parked counted, and in the
--          sorted set; completed counted, and in the sorted set; how many are in queues, as these are counted; and
--          with 'states', how many leases run; 1 if a lease was given later than now, else 0; the server's time (Unix
--          milliseconds); and for each of the queues an array of how many workflows it has, how many of these are
--          leased, and when the first one is due, or ''
-- Errors   DAMAGED <what>

--@include numbers
--@include clock

local partition, index, parked, completed, feed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local queues, leases, first_queue = KEYS[6], KEYS[7], 8
local mode = ARGV[1]

local indexed, away = redis.call('ZCARD', index), redis.call('ZCARD', parked)
local done = redis.call('ZCARD', completed)
local counted = redis.call('HMGET', partition, 'made', 'workflows', 'parked', 'completed')
if mode == 'repair' then
  -- A foreign value there keeps no other count from being repaired.
  local last = feed ~= index and redis.pcall('XREVRANGE', feed, '+', '-', 'COUNT', 1)
  last = last and last[1] and string.match(last[1][1], '^%d+')
  -- The next commit takes the position after it.
  if last and as_count(last) and as_count(last) > (as_count(redis.call('HGET', partition, 'position')) or 0) then
    redis.call('HSET', partition, 'position', last)
  end
  redis.call('HSET', partition, 'made', '1', 'workflows', indexed, 'parked', away, 'completed', done)
  local key = 8
  while true do
    local queue = unpack(KEYS, key, key)
    if not queue then break end
    key = key + 1
    local size, name = redis.pcall('ZCARD', queue), string.sub(queue, #queues + 1)
    if size == 0 then
      redis.call('HDEL', queues, name)
    elseif type(size) == 'number' then
      redis.call('HSET', queues, name, size)
    end
  end
end
local running, queued, was_set_back, by_queue = 0, 0, 0, {}
local _, ms = now()
local sizes = {}
local pairs_of_queues = redis.call('HGETALL', queues)
for at = 1, #pairs_of_queues, 2 do
  local name, size = pairs_of_queues[at], as_count(pairs_of_queues[at + 1]) or 0
  if name == 'leased at' then
    was_set_back = size > ms and 1 or 0
  else
    sizes[name], queued = size, queued + size
  end
end

-- Return for some queues how many workflows each has, how many of these are leased, and when the first one is due; or
-- an error.
local function count_queues(first_queue)
  local leased = redis.call('ZRANGEBYSCORE', leases, '(' .. int(ms), '+inf')
  local found = {}
  for place = first_queue, #KEYS do
    local queue = KEYS[place]
    local held = 0
    local size, head = redis.call('ZCARD', queue), redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    if size ~= (sizes[string.sub(queue, #queues + 1)] or 0) then return nil, 'DAMAGED queue' end
    for _, workflow in ipairs(leased) do
      if redis.call('ZSCORE', queue, workflow) then held = held + 1 end
    end
    found[#found + 1] = {size, held, head[2] or ''}
  end
  return found
end

if mode == 'states' then
  running = redis.call('ZCOUNT', leases, '(' .. int(ms), '+inf')
  local problem
  by_queue, problem = count_queues(first_queue)
  if problem then return redis.error_reply(problem) end
end
return {
  counted[1] and 1 or 0, counted[2] or '0', indexed, counted[3] or '0', away, counted[4] or '0', done, queued, running,
  was_set_back, ms, by_queue,
}
