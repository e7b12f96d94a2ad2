-- Include `numbers` before this part.

-- Note when a lease of the partition was last given or extended, so that a claim notices that the clock was set back.
-- The field is in the hash of the queues, and no queue has a space in its name.
local function note_lease_time(queues, ms)
  local last = as_count(redis.call('HGET', queues, 'leased at')) or 0
  if ms > last then redis.call('HSET', queues, 'leased at', int(ms)) end
end
