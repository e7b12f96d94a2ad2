-- Include `numbers` before this part.

-- Return the server's time: Unix microseconds, and milliseconds.
local function now()
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  return micros, math.floor(micros / 1000)
end

-- Return the index score of a write that happens now: above every other score of the partition. The caller's clock
-- counts if the server's is behind these scores by a second, because it was set back or a failover led to another
-- server. It is behind by less where one call writes much. `top` is the highest member of the index with its score,
-- from ZREVRANGE.
local function next_score(top, micros, caller_us)
  local highest = tonumber(top[2] or 0)
  if highest < micros or highest >= 9007199254740991 then return int(micros) end
  return int(highest < micros + 1000000 and highest + 1 or math.max(highest + 1, tonumber(caller_us)))
end

-- Whether a time has reached the end of a workflow. A workflow is over by the earlier one of the server's and the
-- caller's clock. A write that would be lost with the workflow passes the later one, see operations/ending.py.
local function is_over(expires, time) return expires and (as_count(expires) or math.huge) * 1000 <= time end
