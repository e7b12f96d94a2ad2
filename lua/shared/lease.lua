-- Goes with the owner.

-- Whether a write that carries a lease, '<fencing token> <milliseconds>', must be refused: an error, or nothing. `fence`
-- is the token of the workflow's last lease, `leases` the partition's sorted set of unfinished workflows by the time
-- when their leases end.
local function refused(lease, fence, meta_key, leases)
  if lease == '' then return nil end
  if fence ~= string.match(lease, '^%d+') then
    return 'LEASE_LOST ' .. spelled(redis.call('HGET', meta_key, 'lease_owner'))
  end
  local found = redis.pcall('ZCARD', leases)
  return type(found) == 'table' and found.err or nil
end

-- Has a lease last for its time from now on. Only what is unfinished stands among the leases.
local function prolong(lease, ms, workflow, meta_key, leases, partition)
  local ends = int(ms + tonumber(string.match(lease, '%d+$')))
  redis.call('HSET', meta_key, 'lease_until', ends, 'lease_ms', string.match(lease, '%d+$'))
  redis.call('ZADD', leases, 'XX', ends, workflow)
  note_lease(partition, ms)
end

-- Has a lease that was written with last on: not each time, but when half of its time is over, or the clock was set back.
local function renew(lease, ms, workflow, meta_key, leases, partition)
  if lease == '' then return end
  local lasts = tonumber(string.match(lease, '%d+$'))
  local left = (whole(redis.call('HGET', meta_key, 'lease_until')) or 0) - ms
  if left <= lasts / 2 or left > lasts then prolong(lease, ms, workflow, meta_key, leases, partition) end
end
