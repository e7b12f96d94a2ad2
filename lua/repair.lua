-- Sets right what of a workflow can be derived from the rest of it, if it is still as it was looked at.
--
-- KEYS[1]  meta      hash of the workflow
-- KEYS[2]  refs      set of the hashes of the facts that it refers to
-- KEYS[3]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[5]  expiring  sorted set of the partition's workflows that expire, by when
-- KEYS[6]  events    stream
-- KEYS[7]  partition hash of the partition: counts
-- ARGV[1]  workflow id
-- ARGV[2]  the cursor in the meta hash as it was looked at, '' if there was none
-- ARGV[3]  the ID of the stream's last entry as it was looked at, '' if there was none
-- ARGV[4]  the lease's fencing token in the meta hash as it was looked at, '' if there was none
-- ARGV[5…] pairs of what to set and to what:
--          meta.cursor, meta.created, meta.largest, meta.ids, meta.refs, meta.snapshot, meta.log   fields of the meta hash
--          index, leases, expiring                   the workflow's score there, '' to take it out
--          refs                                      a hash to add, which is counted
-- Reply    integer: 1 if it was set right, 0 if the workflow has changed
-- Errors   none of its own

--@include numbers
--@include clock
--@include life

local meta = redis.call('HMGET', KEYS[1], 'cursor', 'fence')
local last = redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)[1]
if (meta[1] or '') ~= ARGV[2] or (last and last[1] or '') ~= ARGV[3] or (meta[2] or '') ~= ARGV[4] then return 0 end
-- Foreign values are refused before the first change.
redis.call('SCARD', KEYS[2])
for number = 3, 5 do redis.call('ZCARD', KEYS[number]) end
redis.call('HLEN', KEYS[7])
for at = 5, #ARGV, 2 do
  local what, value = ARGV[at], ARGV[at + 1]
  local field = string.match(what, '^meta%.(%a+)$')
  if field then
    redis.call('HSET', KEYS[1], field, value)
  elseif what == 'refs' then
    if redis.call('SADD', KEYS[2], value) == 1 then redis.call('HINCRBY', KEYS[1], 'refs', 1) end
  elseif what == 'expiring' then
    if value == '' then redis.call('ZREM', KEYS[5], ARGV[1]) else redis.call('ZADD', KEYS[5], value, ARGV[1]) end
  elseif what == 'leases' then
    if value == '' then
      drop_unfinished(KEYS[4], KEYS[7], ARGV[1])
    else
      put_unfinished(KEYS[4], KEYS[7], value, ARGV[1])
    end
  elseif value ~= '' then
    touch_index(KEYS[3], KEYS[7], value, ARGV[1])
  elseif redis.call('ZREM', KEYS[3], ARGV[1]) == 1 then
    redis.call('HINCRBY', KEYS[7], 'workflows', -1)
  end
end
return 1
