-- Sets right what of a workflow can be derived from the rest of it, if it is still as it was looked at.
--
-- KEYS[1]  meta      hash of the workflow
-- KEYS[2]  refs      set of the hashes of the facts that it refers to
-- KEYS[3]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[4]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[5]  expiring  sorted set of the partition's workflows that expire, by when
-- KEYS[6]  events    stream
-- KEYS[7]  commits   hash of the commit ids that callers gave
-- KEYS[8]  partition hash of the partition: counts
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
-- A workflow that was lost from a sorted set is still counted. One that was put there by hand never was. So the partition's
-- count changes only where it would differ from the set otherwise.

--@include numbers

local meta = redis.call('HMGET', KEYS[1], 'cursor', 'fence')
local last = redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)[1]
if (meta[1] or '') ~= ARGV[2] or (last and last[1] or '') ~= ARGV[3] or (meta[2] or '') ~= ARGV[4] then return 0 end
-- Foreign values are refused before the first change.
redis.call('SCARD', KEYS[2])
redis.call('HLEN', KEYS[7])
local sets = {index = KEYS[3], leases = KEYS[4], expiring = KEYS[5]}
for _, key in pairs(sets) do redis.call('ZCARD', key) end
local counts = {index = 'workflows', leases = 'unfinished'}

-- Puts the workflow into a sorted set, or takes it out.
local function set_score(name, score)
  local key, field = sets[name], counts[name]
  local size = redis.call('ZCARD', key)
  local change = score == '' and -redis.call('ZREM', key, ARGV[1]) or redis.call('ZADD', key, score, ARGV[1])
  if not field or change == 0 then return end
  local counted = redis.pcall('HGET', KEYS[8], field)
  counted = type(counted) ~= 'table' and whole(counted)
  if counted and (counted - size) * change <= 0 then redis.call('HINCRBY', KEYS[8], field, change) end
end

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
  else
    set_score(what, value)
  end
end
return 1
