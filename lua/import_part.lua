-- Adds to what is gathered of a workflow that is imported, unless another import has begun with it since.
--
-- KEYS[1]  part      what is added to: a stream, a hash, a string or a set, beside the workflow's keys
-- KEYS[2]  gathered  a hash: begun, the id of the beginning that it belongs to
-- ARGV[1]  id of the beginning that this belongs to
-- ARGV[2]  for how many milliseconds it is kept, unless the import goes on
-- ARGV[3]  kind      entries, refs, log, or else a hash
-- ARGV[4…] for each entry its ID, how many fields and values it has, and those; or the members; or the log; or fields
--          and values
-- Reply    integer: 1
-- Errors   IMPORT_LOST, another has begun, or it was not gone on with for too long

if redis.call('HGET', KEYS[2], 'begun') ~= ARGV[1] then return redis.error_reply('IMPORT_LOST ') end
local kind = ARGV[3]
local at = 4
if kind == 'entries' then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  local cursor = last and tonumber(string.match(last[1], '^%d+')) or 0
  while at <= #ARGV do
    local id, count = ARGV[at], tonumber(ARGV[at + 1])
    -- On a retry they are there.
    if tonumber(string.match(id, '^%d+')) > cursor then
      redis.call('XADD', KEYS[1], id, unpack(ARGV, at + 2, at + 1 + count))
    end
    at = at + 2 + count
  end
elseif kind == 'refs' then
  for number = at, #ARGV do redis.call('SADD', KEYS[1], ARGV[number]) end
elseif kind == 'log' then
  redis.call('SET', KEYS[1], ARGV[at])
else
  for number = at, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[number], ARGV[number + 1]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
