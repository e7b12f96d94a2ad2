-- Makes a workflow of what was gathered for it, in one step.
--
-- KEYS[1]   entries   what was gathered, those that there are: a stream,
-- KEYS[2]   snapshot  a hash,
-- KEYS[3]   log       a string,
-- KEYS[4]   commits   a hash,
-- KEYS[5]   refs      a set,
-- KEYS[6]   gathered  a hash: begun, the id of the beginning that it belongs to
-- KEYS[7]   events    what they become
-- KEYS[8]   snapshot
-- KEYS[9]   log
-- KEYS[10]  commits
-- KEYS[11]  refs
-- KEYS[12]  meta      hash of the workflow
-- KEYS[13]  index     sorted set of the partition's workflows by the time of their last write
-- KEYS[14]  leases    sorted set of the partition's unfinished workflows by the end of their leases
-- KEYS[15]  expiring  sorted set of the partition's workflows that expire, by when
-- KEYS[16]  partition hash of the partition: made, counts
-- ARGV[1]   workflow id
-- ARGV[2]   id of the beginning that this belongs to
-- ARGV[3]   how many entries it has
-- ARGV[4]   the ID of the last one, '' if it has none
-- ARGV[5]   when it was last written to (Unix microseconds)
-- ARGV[6]   '1' if it is unfinished
-- ARGV[7]   when it expires (Unix milliseconds), or ''
-- ARGV[8]   when it was created (Unix microseconds)
-- ARGV[9…]  the other fields of its meta hash
-- Reply     integer: 1
-- Errors    WORKFLOW_EXISTS, another of this id; IMPORT_LOST, another import has begun with it since;
--           IMPORT_INCOMPLETE <entries that there are>; NEW_PARTITION

--@include partition
--@include index
--@include unfinished

local gathered = {KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]}
local made = {KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]}
local id = ARGV[1]
-- Foreign values are refused before the first change.
redis.call('ZCARD', KEYS[13])
redis.call('ZCARD', KEYS[14])
redis.call('ZCARD', KEYS[15])
local problem, retried = partition_state(KEYS[16])
if problem then return redis.error_reply(problem) end
local mine = redis.call('HGET', KEYS[6], 'begun') == ARGV[2]
-- What is gathered goes with it, unless it is another's.
local function refused(said)
  if mine then redis.call('UNLINK', KEYS[6], unpack(gathered)) end
  return redis.error_reply(said)
end
if not mine and redis.call('HGET', KEYS[12], 'created') == ARGV[8] and (ARGV[4] == ''
    or #redis.call('XRANGE', KEYS[7], ARGV[4], ARGV[4]) > 0) then
  return 1 -- this is a second try, or the same one came by another import
end
if redis.call('EXISTS', unpack(made)) > 0 then return refused('WORKFLOW_EXISTS ') end
if not mine then return refused('IMPORT_LOST ') end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local count = redis.call('XLEN', KEYS[1])
if count ~= tonumber(ARGV[3]) or (last and last[1] or '') ~= ARGV[4] then
  return refused('IMPORT_INCOMPLETE ' .. count)
end

for at, key in ipairs(gathered) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('PERSIST', key)
    redis.call('RENAME', key, made[at])
  end
end
redis.call('UNLINK', KEYS[6])
redis.call('HSET', KEYS[12], 'created', ARGV[8], unpack(ARGV, 9))
-- What the meta hash says of the other keys.
local ids, refs = redis.call('HLEN', KEYS[10]), redis.call('SCARD', KEYS[11])
if ids > 0 then redis.call('HSET', KEYS[12], 'ids', ids) end
if refs > 0 then redis.call('HSET', KEYS[12], 'refs', refs) end
local snapshot = redis.call('HGET', KEYS[8], 'cursor')
if snapshot then redis.call('HSET', KEYS[12], 'snapshot', snapshot) end
if redis.call('STRLEN', KEYS[9]) > 0 then redis.call('HSET', KEYS[12], 'log', '1') end
if retried then redis.call('HSET', KEYS[12], 'retried', '1') end
touch_index(KEYS[13], KEYS[16], ARGV[5], id)
if ARGV[6] == '1' then put_unfinished(KEYS[14], KEYS[16], 0, id) end
if ARGV[7] ~= '' then redis.call('ZADD', KEYS[15], ARGV[7], id) end
return 1
