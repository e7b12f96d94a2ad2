-- Include `owner` and `queue` before this part.

-- Return the error of a key that the caller did not know: its place among the keys of the call, and its name.
local function other_key(place, key) return 'OTHER_KEY ' .. place .. ' ' .. percent_encoded(key) end

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
