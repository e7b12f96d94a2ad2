-- Include `append_workflow`, `labels` and `other_key` before this part.
--
-- The labels of a workflow are its attributes and its parent. Each is a field of the meta hash, 'a:<name>' or
-- 'parent'. The workflow stands in a sorted set for each of them, by when it was created (Unix milliseconds).

-- How many attributes a workflow has at most.
local MOST_ATTRIBUTES = 16

-- Return the labels of a commit. Two keys belong to each: the set of the new value, and that of the one before.
local function labels_of(count, key, at, first_key)
  local labels = {}
  for number = 1, tonumber(count or 0) do
    local place = key + 2 * number - 2
    local set, before = unpack(KEYS, place, place + 1)
    local field, value = unpack(ARGV, at + 2 * number - 2, at + 2 * number - 1)
    labels[number] = {field = field, value = value, set = set, before = before, place = place + 2 - first_key}
  end
  return labels
end

-- Return whether the workflow would have too many attributes.
local function has_too_many(w, labels)
  local has, count = {}, 0
  local fields = call('HGETALL', w.meta)
  for at = 1, #fields, 2 do has[fields[at]] = true end
  for _, label in ipairs(labels) do has[label.field] = label.value ~= '' or nil end
  for field in pairs(has) do
    if string.sub(field, 1, 2) == 'a:' then count = count + 1 end
  end
  return count > MOST_ATTRIBUTES
end

-- Return the error that keeps the labels from being stored, or nothing.
local function labels_error(w, labels, queues, cursor)
  for _, label in ipairs(labels) do
    if label.field == 'parent' and cursor > 0 then return 'ALREADY_STARTED ' end
    label.stored = call('HGET', w.meta, label.field)
    local before = label.stored and label_set(queues, label.field, label.stored)
    if before and before ~= label.before then return other_key(label.place, before) end
    local size = try('ZCARD', label.set)
    if type(size) == 'number' then size = try('ZCARD', label.before) end
    if type(size) == 'table' then return size.err end
  end
  return #labels > 0 and has_too_many(w, labels) and 'TOO_MANY_ATTRIBUTES ' or nil
end

local function store_labels(w, labels)
  local created = labels[1] and as_count(call('HGET', w.meta, 'created'))
  -- A new workflow gets its time of creation at the end of the call.
  if not created or created == 0 then created = micros end
  for _, label in ipairs(labels) do
    if label.stored then call('ZREM', label.before, w.id) end
    if label.value == '' then
      call('HDEL', w.meta, label.field)
    else
      call('HSET', w.meta, label.field, string.sub(label.value, 2))
      call('ZADD', label.set, int(math.floor(created / 1000)), w.id)
    end
  end
end
