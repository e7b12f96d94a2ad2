-- Include `owner` before this part.

-- Return the error that rejects a write with a lease, '<fencing token> <milliseconds>', or nothing. `fence` is the
-- token of the workflow's last lease. `leases` is the partition's sorted set of unfinished workflows by the end of
-- their leases.
local function lease_error(lease, fence, meta_key, leases)
  if lease == '' then return nil end
  if fence ~= string.match(lease, '^%d+') then
    return 'LEASE_LOST ' .. percent_encoded(redis.call('HGET', meta_key, 'lease_owner'))
  end
  local size = redis.pcall('ZCARD', leases)
  return type(size) == 'table' and size.err or nil
end

-- Let a lease last for its full time from now on. The sorted set holds unfinished workflows only.
local function extend_lease(lease, ms, workflow, meta_key, leases, partition)
  local ends = int(ms + tonumber(string.match(lease, '%d+$')))
  redis.call('HSET', meta_key, 'lease_until', ends, 'lease_ms', string.match(lease, '%d+$'))
  redis.call('ZADD', leases, 'XX', ends, workflow)
  note_lease_time(partition, ms)
end

-- Extend the lease of a write, but not each time: once half of its time is over, or when the clock was set back.
local function extend_used_lease(lease, ms, workflow, meta_key, leases, partition)
  if lease == '' then return end
  local lasts = tonumber(string.match(lease, '%d+$'))
  local left = (as_count(redis.call('HGET', meta_key, 'lease_until')) or 0) - ms
  if left <= lasts / 2 or left > lasts then extend_lease(lease, ms, workflow, meta_key, leases, partition) end
end
