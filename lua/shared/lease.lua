-- Whether a write that carries a lease, '<fencing token> <milliseconds>', must be refused: an error, or nothing. `fence`
-- is the token of the workflow's last lease, `leases` the partition's sorted set of unfinished workflows by the time
-- when their leases end.
local function refused(lease, fence, meta_key, leases)
  if lease == '' then return nil end
  if fence ~= string.match(lease, '^%d+') then
    return 'LEASE_LOST ' .. (redis.call('HGET', meta_key, 'lease_owner') or '')
  end
  local found = redis.pcall('ZCARD', leases)
  return type(found) == 'table' and found.err or nil
end

-- Has a lease that was written with last on: not each time, but when half of its time is over.
local function renew(lease, ms, workflow, meta_key, leases)
  if lease == '' then return end
  local lasts = tonumber(string.match(lease, '%d+$'))
  local ends = tonumber(redis.call('HGET', meta_key, 'lease_until') or 0)
  if ends - ms > lasts / 2 then return end
  redis.call('HSET', meta_key, 'lease_until', string.format('%.0f', ms + lasts))
  redis.call('ZADD', leases, 'XX', string.format('%.0f', ms + lasts), workflow)
end
