-- Makes a workflow of what was gathered for it, in one step.
--
-- KEYS[1]   entries   what was gathered, those that there are: a stream,
-- KEYS[2]   snapshot  a hash,
-- KEYS[3]   log       a string,
-- KEYS[4]   commits   a hash,
-- KEYS[5]   refs      a set
-- KEYS[6]   events    what they become
-- KEYS[7]   snapshot
-- KEYS[8]   log
-- KEYS[9]   commits
-- KEYS[10]  refs
-- KEYS[11]  meta      hash of the workflow
-- KEYS[12]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[13]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[14]  expiring  sorted set of the partition's workflows that expire, by when
-- ARGV[1]   workflow id
-- ARGV[2]   how many entries it has
-- ARGV[3]   the ID of the last one, '' if it has none
-- ARGV[4]   when it was last written to (Unix microseconds)
-- ARGV[5]   '1' if it is unfinished
-- ARGV[6]   when it expires (Unix milliseconds), or ''
-- ARGV[7]   when it was created (Unix microseconds)
-- ARGV[8…]  the other fields of its meta hash
-- Reply     integer: 1
-- Errors    WORKFLOW_EXISTS, another of this id; IMPORT_INCOMPLETE <entries that there are>

local gathered = {KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]}
local made = {KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]}
local id = ARGV[1]
-- Foreign values are refused before the first change.
redis.call('ZCARD', KEYS[12])
redis.call('ZCARD', KEYS[13])
redis.call('ZCARD', KEYS[14])
if redis.call('HLEN', KEYS[11]) > 0 then
  -- Another, or this is a second try.
  return redis.call('HGET', KEYS[11], 'created') == ARGV[7] and 1 or redis.error_reply('WORKFLOW_EXISTS ')
end
if redis.call('EXISTS', unpack(made)) > 0 then return redis.error_reply('WORKFLOW_EXISTS ') end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local count = redis.call('XLEN', KEYS[1])
if count ~= tonumber(ARGV[2]) or (last and last[1] or '') ~= ARGV[3] then
  return redis.error_reply('IMPORT_INCOMPLETE ' .. count)
end

for at, key in ipairs(gathered) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('PERSIST', key)
    redis.call('RENAME', key, made[at])
  end
end
redis.call('HSET', KEYS[11], 'created', ARGV[7], unpack(ARGV, 8))
redis.call('ZADD', KEYS[12], ARGV[4], id)
if ARGV[5] == '1' then redis.call('ZADD', KEYS[13], 0, id) end
if ARGV[6] ~= '' then
  redis.call('ZADD', KEYS[14], ARGV[6], id)
  for _, key in ipairs(made) do redis.call('PEXPIREAT', key, ARGV[6]) end
end
return 1
