-- Makes a workflow of what was imported for it, in one step.
--
-- KEYS[1…5]   what was imported: its entries, snapshot, log, commits, refs; those that there are
-- KEYS[6…10]  what they become: events, snapshot, log, commits, refs
-- KEYS[11]    meta      hash of the workflow
-- KEYS[12]    index     sorted set of the partition's workflows by the time of their last write
-- KEYS[13]    leases    sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[14]    expiring  sorted set of the partition's workflows that expire, by when
-- ARGV[1]     workflow id
-- ARGV[2]     how many entries it has
-- ARGV[3]     the ID of the last one, '' if it has none
-- ARGV[4]     when it was last written to (Unix microseconds)
-- ARGV[5]     '1' if it is unfinished
-- ARGV[6]     when it expires (Unix milliseconds), or ''
-- ARGV[7]     when it was created (Unix microseconds)
-- ARGV[8…]    the other fields of its meta hash
-- Reply       integer: 1
-- Errors      EXISTS, if there is another workflow of this id; INCOMPLETE <entries that there are>

local id = ARGV[1]
-- Foreign values are refused before the first change.
for at = 12, 14 do redis.call('ZCARD', KEYS[at]) end
if redis.call('HLEN', KEYS[11]) > 0 then
  -- Another, or this is a second try.
  return redis.call('HGET', KEYS[11], 'created') == ARGV[7] and 1 or redis.error_reply('EXISTS')
end
for at = 6, 10 do
  if redis.call('EXISTS', KEYS[at]) == 1 then return redis.error_reply('EXISTS') end
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local count = redis.call('XLEN', KEYS[1])
if count ~= tonumber(ARGV[2]) or (last and last[1] or '') ~= ARGV[3] then
  return redis.error_reply('INCOMPLETE ' .. count)
end

redis.call('HSET', KEYS[11], 'created', ARGV[7], unpack(ARGV, 8))
for at = 1, 5 do
  if redis.call('EXISTS', KEYS[at]) == 1 then
    redis.call('RENAME', KEYS[at], KEYS[at + 5])
    redis.call('PERSIST', KEYS[at + 5])
  end
end
redis.call('ZADD', KEYS[12], ARGV[4], id)
if ARGV[5] == '1' then redis.call('ZADD', KEYS[13], 0, id) end
if ARGV[6] ~= '' then
  redis.call('ZADD', KEYS[14], ARGV[6], id)
  for at = 6, 11 do redis.call('PEXPIREAT', KEYS[at], ARGV[6]) end
end
return 1
