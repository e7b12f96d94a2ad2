-- Include `numbers` and `owner` before this part.
--
-- The queues of a partition: sorted sets of unfinished workflows by when they are due (Unix milliseconds). A leased one
-- is due at the end of its lease. `queues` is the hash of how many workflows each queue has.

-- Return the error of a key that the caller did not know: its place among the keys of the call, and its name.
local function other_key(place, key) return 'OTHER_KEY ' .. place .. ' ' .. percent_encoded(key) end

-- Return the name of a queue, by its key.
local function queue_name(queues, queue) return string.sub(queue, #queues + 1) end

-- Return the error that keeps a workflow's queue from being changed, or nothing. `name` is the queue of the workflow,
-- if it has one, and `place` the place of `queue` among the keys of the call.
local function queue_error(queues, queue, name, place)
  if name and queue_name(queues, queue) ~= name then
    return other_key(place, string.sub(queues, 1, -2) .. ':' .. name)
  end
  local size = redis.pcall('HLEN', queues)
  if type(size) == 'table' then return size.err end
  size = redis.pcall('ZCARD', queue)
  return type(size) == 'table' and size.err or nil
end

-- Put a workflow in a queue, or change when it is due there.
local function put_in_queue(queues, queue, workflow, due)
  if redis.call('ZADD', queue, due, workflow) == 1 then
    redis.call('HINCRBY', queues, queue_name(queues, queue), 1)
  end
end

-- Remove a workflow from a queue.
local function remove_from_queue(queues, queue, workflow)
  if redis.call('ZREM', queue, workflow) == 0 then return end
  local name = queue_name(queues, queue)
  if redis.call('HINCRBY', queues, name, -1) <= 0 then redis.call('HDEL', queues, name) end
end

-- Return when a workflow is due, as a score. `text` is '' for now, '+<milliseconds>' from now on, a time (Unix
-- milliseconds), or 'inf' for a workflow that waits until it is woken.
local function due_at(text, ms)
  if text == '' then return int(ms) end
  if text == 'inf' then return '+inf' end
  local wait = string.match(text, '^%+(%d+)$')
  return wait and int(ms + tonumber(wait)) or text
end

-- Tell the waiting claims that a workflow is due now, or soon. They look by themselves after a second.
local function hint(queues, queue, due, ms)
  if due == '+inf' or tonumber(due) > ms + 1000 then return end
  local channel = string.gsub(queues, ':%d+}:queues$', '}:due')
  redis.pcall('PUBLISH', channel, due .. ' ' .. queue_name(queues, queue))
end
