-- Sets right what of a workflow can be derived from the rest of it, if it is still as it was looked at.
--
-- KEYS[1]  meta      hash of the workflow
-- KEYS[2]  refs      set of the hashes of the facts that it refers to
-- KEYS[3]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[5]  expiring  sorted set of the partition's workflows that expire, by when
-- KEYS[6]  events    stream
-- KEYS[7]  commits   hash of the commit ids that callers gave
-- ARGV[1]  workflow id
-- ARGV[2]  the cursor in the meta hash as it was looked at, '' if there was none
-- ARGV[3]  the ID of the stream's last entry as it was looked at, '' if there was none
-- ARGV[4]  the lease's fencing token in the meta hash as it was looked at, '' if there was none
-- ARGV[5…] pairs of what to set and to what:
--          meta.cursor, meta.created, meta.largest, meta.snapshot, meta.log   fields of the meta hash; '' removes one
--          count.refs, count.ids                     has the references or the commit ids counted
--          index, leases, expiring                   the workflow's score there, '' to take it out
--          refs                                      a hash to add
--          commits                                   a cursor, a space, and a commit id to add
-- Reply    integer: 1 if it was set right, 0 if the workflow has changed
-- Errors   none of its own
--
-- The partition's counts stay: what was lost from a sorted set is counted still, and what was never counted goes.

local meta = redis.call('HMGET', KEYS[1], 'cursor', 'fence')
local last = redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)[1]
if (meta[1] or '') ~= ARGV[2] or (last and last[1] or '') ~= ARGV[3] or (meta[2] or '') ~= ARGV[4] then return 0 end
-- Foreign values are refused before the first change.
redis.call('SCARD', KEYS[2])
redis.call('HLEN', KEYS[7])
local sets = {index = KEYS[3], leases = KEYS[4], expiring = KEYS[5]}
for _, key in pairs(sets) do redis.call('ZCARD', key) end
for at = 5, #ARGV, 2 do
  local what, value = ARGV[at], ARGV[at + 1]
  local field = string.match(what, '^meta%.(%a+)$')
  if field and value == '' then
    redis.call('HDEL', KEYS[1], field)
  elseif field then
    redis.call('HSET', KEYS[1], field, value)
  elseif what == 'refs' then
    redis.call('SADD', KEYS[2], value)
  elseif what == 'count.refs' then
    redis.call('HSET', KEYS[1], 'refs', redis.call('SCARD', KEYS[2]))
  elseif what == 'commits' then
    local cursor, id = string.match(value, '^(%d+) (.*)$')
    redis.call('HSETNX', KEYS[7], id, cursor)
  elseif what == 'count.ids' then
    redis.call('HSET', KEYS[1], 'ids', redis.call('HLEN', KEYS[7]))
  elseif value == '' then
    redis.call('ZREM', sets[what], ARGV[1])
  else
    redis.call('ZADD', sets[what], value, ARGV[1])
  end
end
return 1
