-- Add to what an import has gathered of a workflow, unless another import of it has begun since.
--
-- KEYS[1]  part      where it is added: a stream, a hash, a string or a sorted set, beside the workflow's keys
-- KEYS[2]  gathered  a hash: begun, the id of the import that the part belongs to
-- ARGV[1]  id of the import
-- ARGV[2]  how many milliseconds the gathered keys are kept if the import does not go on
-- ARGV[3]  kind      entries, refs, tags, log, or else a hash
-- ARGV[4…] for each entry its ID, how many fields and values it has, and those; or members and scores; or the log; or
--          fields and values
-- Reply    integer: 1
-- Errors   IMPORT_LOST, if another import has begun, or this one paused for too long

local part, gathered = KEYS[1], KEYS[2]
local import_id, kept_ms, kind = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', gathered, 'begun') ~= import_id then return redis.error_reply('IMPORT_LOST ') end
local at = 4
if kind == 'entries' then
  local last = redis.call('XREVRANGE', part, '+', '-', 'COUNT', 1)[1]
  local last_one, last_two = string.match(last and last[1] or '0-0', '^(%d+)-(%d+)$')
  while at <= #ARGV do
    local id, count = ARGV[at], tonumber(ARGV[at + 1])
    local one, two = string.match(id, '^(%d+)-(%d+)$')
    -- A retry finds entries that it has added.
    if tonumber(one) > tonumber(last_one) or (one == last_one and tonumber(two) > tonumber(last_two)) then
      redis.call('XADD', part, id, unpack(ARGV, at + 2, at + 1 + count))
    end
    at = at + 2 + count
  end
elseif kind == 'refs' or kind == 'tags' then
  for place = at, #ARGV, 2 do
    local member, score = ARGV[place], ARGV[place + 1]
    redis.call('ZADD', part, score, member)
  end
elseif kind == 'log' then
  local log = ARGV[at]
  redis.call('SET', part, log)
else
  for place = at, #ARGV, 2 do
    local field, value = ARGV[place], ARGV[place + 1]
    redis.call('HSET', part, field, value)
  end
end
redis.call('PEXPIRE', part, kept_ms)
redis.call('PEXPIRE', gathered, kept_ms)
return 1
