-- Include `numbers` before this part.
--
-- A lifetime that slides is extended by each write that gives the workflow a new score in the index. The write does
-- not change `expires`. So the end is the later one of `expires` and the time of the last write plus `sliding`.
-- `touched` is the time of the last write by the caller's clock, where that was ahead of the score.

-- Return the end of a workflow (Unix milliseconds), from the values of its meta hash and its score in the index; nil
-- if one of them is damaged.
local function last_end(expires, sliding, touched, score)
  local ends, lasts, noted = as_count(expires), as_count(sliding), as_count(touched)
  if not (ends and lasts and noted) then return nil end
  if not sliding then return ends end
  return math.max(ends, math.max(math.ceil(tonumber(score or 0) / 1000), noted) + lasts)
end

-- Let a workflow be kept for some milliseconds from the later one of two clocks on; and from each write on, if it
-- `slides`.
local function set_end(meta_key, expiring, workflow, latest_us, kept_ms, slides)
  local expires = int(math.floor(latest_us / 1000) + tonumber(kept_ms))
  redis.call('HDEL', meta_key, 'sliding', 'touched')
  redis.call('HSET', meta_key, 'expires', expires)
  if slides then redis.call('HSET', meta_key, 'sliding', kept_ms) end
  redis.call('ZADD', expiring, expires, workflow)
end

-- Note the time of a write by the caller's clock, if it is ahead of the score that the write gives to the workflow.
local function note_touch(meta_key, sliding, score, caller_us)
  if sliding and tonumber(caller_us) > tonumber(score) then
    redis.call('HSET', meta_key, 'touched', int(math.ceil(tonumber(caller_us) / 1000)))
  end
end
