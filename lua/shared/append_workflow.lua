-- Include `numbers`, `clock`, `meta` and `partition` before this part, which `append` needs. `w` is a workflow: its
-- `id`; its keys `events`, `meta`, `index` and `partition`; the size of its `largest` entry.

local function workflow_of(id, events, meta, index, partition, largest)
  return {id = id, events = events, meta = meta, index = index, partition = partition, largest = largest}
end

-- Return the error that keeps the workflow from being created, or from its first commit. Without one, return nil,
-- and whether replies to retries are kept for it.
local function start_error(w, is_new, retried)
  local length = try('XLEN', w.events)
  if type(length) == 'table' then return length.err end
  if length > 0 then return 'DAMAGED cursor' end
  if not is_new then return nil, retried end
  local reason = meta_error(w.index, w.id)
  if reason then return reason end
  return partition_error(w.partition)
end

-- Read a workflow that is not plain, from the values of its meta hash. Return an error; or nil, its cursor, the
-- score of this write, whether it is new, whether replies to retries are kept for it, and the function that notes the
-- time of this write, if its lifetime may slide.
local function read_workflow(w, meta, failure, time_us)
  local top = not meta.err and try('ZREVRANGE', w.index, 0, 0, 'WITHSCORES')
  local problem = meta.err or top.err or failure
  local cursor = not problem and as_count(meta[1])
  if not cursor then problem = problem or 'DAMAGED cursor' end
  -- These would fail only after much is written, and other commits with it.
  if not (as_count(meta[4]) and as_count(meta[5])) then problem = problem or 'DAMAGED meta hash' end
  if problem then return problem end
  local is_new, retried = not meta[2], meta[3]
  if is_over(meta[5], math.max(micros, tonumber(time_us))) then return 'END_REACHED ', cursor end
  if cursor == 0 then problem, retried = start_error(w, is_new, retried) end
  local score = next_score(top, micros, time_us)
  local function note()
    note_touch(w.meta, call('HEXISTS', w.meta, 'sliding') == 1, score, time_us)
  end
  return problem, cursor, score, is_new, retried, meta[5] and note
end

-- Whether an error comes from a replica. Then the whole call fails: the sender must look for the primary.
local function is_from_replica(failure)
  return type(failure) == 'string' and string.find(failure, 'READONLY', 1, true)
end

-- Take back a position after the feed has rejected its entry. Return the error.
local function take_back(partition, position, count, failure)
  call('HINCRBY', partition, 'position', -count)
  if position == tonumber(count) then call('HDEL', partition, 'position') end
  return string.find(tostring(failure), 'equal or smaller', 1, true) and 'DAMAGED position' or failure
end

-- Replace the feed's entry of a commit that was not stored: positions have no gaps.
local function void_entry(feed, position, count)
  call('XDEL', feed, int(position) .. '-' .. now_ms)
  call('XADD', feed, int(position) .. '-' .. int(ms + 1), 'void ' .. count, '0 ')
end
