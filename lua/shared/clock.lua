-- Goes with the numbers.

-- The server's time: Unix microseconds, and milliseconds.
local function now()
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  return micros, math.floor(micros / 1000)
end

-- The index score of a write that happens now: above every other score of the partition. Where the server's clock is
-- behind these by a second, because it was set back or a failover led to another server, the caller's clock counts. It
-- is less than that where one call writes much. `top` is the highest member of the index with its score, as ZREVRANGE
-- returns it.
local function next_score(top, micros, caller)
  local highest = tonumber(top[2] or 0)
  if highest < micros or highest >= 9007199254740991 then return int(micros) end
  return int(highest < micros + 1000000 and highest + 1 or math.max(highest + 1, tonumber(caller)))
end

-- Whether a workflow's end is reached by a time: by the earlier one of the server's and the caller's it is over. A writer
-- that would be lost with the workflow must notice it by the later one, see operations/ending.py.
local function is_over(expires, time) return expires and (whole(expires) or math.huge) * 1000 <= time end
