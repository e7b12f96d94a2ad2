-- Begins to gather a workflow that is imported, unless it is there already: what was gathered before goes.
--
-- KEYS[1]  entries   what was gathered, those that there are: a stream,
-- KEYS[2]  snapshot  a hash,
-- KEYS[3]  log       a string,
-- KEYS[4]  commits   a hash,
-- KEYS[5]  refs      a set,
-- KEYS[6]  gathered  a hash: begun, the id of the beginning that it belongs to
-- KEYS[7]  meta      hash of the workflow
-- ARGV[1]  id of this beginning
-- ARGV[2]  for how many milliseconds it is kept, unless the import goes on
-- Reply    array: of the workflow that is there, when it was created, and its cursor
-- Errors   none of its own

local there = redis.call('HMGET', KEYS[7], 'created', 'cursor')
local stays = there[1] or there[2]
-- A retry has begun already, and something may have been gathered since.
if stays or redis.call('HGET', KEYS[6], 'begun') ~= ARGV[1] then
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
end
if not stays then
  redis.call('HSET', KEYS[6], 'begun', ARGV[1])
  redis.call('PEXPIRE', KEYS[6], ARGV[2])
end
return there
