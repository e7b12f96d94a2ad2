-- Adds entries to a stream that is being imported, those that are not there yet.
--
-- KEYS[1]  entries  stream, beside the workflow's keys
-- ARGV[1]  for how many milliseconds it is kept, unless the import goes on
-- ARGV[2…] for each entry: its ID, how many fields and values it has, and those
-- Reply    integer: how many entries there are
-- Errors   none of its own

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local cursor = last and tonumber(string.match(last[1], '^%d+')) or 0
local at = 2
while at <= #ARGV do
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  if tonumber(string.match(id, '^%d+')) > cursor then
    redis.call('XADD', KEYS[1], id, unpack(ARGV, at + 2, at + 1 + count))
  end
  at = at + 2 + count
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('XLEN', KEYS[1])
