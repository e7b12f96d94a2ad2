-- Include `numbers` before this part.
--
-- The queues of a partition: sorted sets of unfinished workflows by when they are due (Unix milliseconds). A leased
-- one is due at the end of its lease. `queues` is the hash of how many workflows each queue has.

-- Return the name of a queue, by its key.
local function queue_name(queues, queue) return string.sub(queue, #queues + 1) end

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
-- milliseconds), or 'inf' for a workflow that waits until a message wakes it: now, if it `has_messages` already.
local function due_at(text, ms, has_messages)
  if text == '' then return int(ms) end
  if text == 'inf' then return has_messages and int(ms) or '+inf' end
  local wait = string.match(text, '^%+(%d+)$')
  return wait and int(ms + tonumber(wait)) or text
end

-- Tell the waiting claims that a workflow is due now, or soon. They look by themselves after a second.
local function hint(queues, queue, due, ms)
  if due == '+inf' or tonumber(due) > ms + 1000 then return end
  local channel = string.gsub(queues, ':%d+}:queues$', '}:due')
  redis.pcall('PUBLISH', channel, due .. ' ' .. queue_name(queues, queue))
end
