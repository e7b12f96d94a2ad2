-- Include `numbers`, `owner`, `lease_time`, `queue` and `other_key` before this part.

-- Return the lease of a write, '<fencing token> <milliseconds>', with the keys that it extends; nil without a lease.
-- `leases` is the partition's sorted set of leased workflows by the end of their leases, `queue` the workflow's queue,
-- and `place` the place of that among the keys of the call.
local function lease_of(text, workflow, meta_key, leases, queues, queue, place)
  local token, lasts = string.match(text or '', '^(%d+) (%d+)$')
  return token and {
    token = token, lasts = tonumber(lasts), workflow = workflow, meta = meta_key,
    leases = leases, queues = queues, queue = queue, place = place,
  }
end

-- Return the error that rejects a write with a lease, or nothing.
local function lease_error(lease)
  if not lease then return nil end
  local meta = redis.call('HMGET', lease.meta, 'fence', 'lease_owner', 'queue', 'lease_until')
  if meta[1] ~= lease.token then return 'LEASE_LOST ' .. percent_encoded(meta[2]) end
  lease.ends = as_count(meta[4]) or 0
  local size = redis.pcall('ZCARD', lease.leases)
  if type(size) == 'table' then return size.err end
  return queue_error(lease.queues, lease.queue, meta[3], lease.place)
end

-- Let a lease last for its full time from now on. Completed and parked workflows are in no sorted set.
local function extend_lease(lease, ms)
  local ends = int(ms + lease.lasts)
  redis.call('HSET', lease.meta, 'lease_until', ends, 'lease_ms', int(lease.lasts))
  redis.call('ZADD', lease.leases, 'XX', ends, lease.workflow)
  redis.call('ZADD', lease.queue, 'XX', ends, lease.workflow)
  note_lease_time(lease.queues, ms)
end

-- Extend the lease of a write, but not each time: once half of its time is over, or when the clock was set back.
local function extend_used_lease(lease, ms)
  if not lease then return end
  local left = lease.ends - ms
  if left <= lease.lasts / 2 or left > lease.lasts then extend_lease(lease, ms) end
end
