-- Begin to gather a workflow that is imported, unless it exists already. Delete what an earlier import has gathered.
--
-- KEYS[1]  entries   what an import gathers, those that there are: a stream,
-- KEYS[2]  snapshot  a hash,
-- KEYS[3]  log       a string,
-- KEYS[4]  commits   a hash,
-- KEYS[5]  refs      a sorted set,
-- KEYS[6]  inbox     a stream,
-- KEYS[7]  messages  a hash,
-- KEYS[8]  tags      a sorted set,
-- KEYS[9]  gathered  a hash: begun, the id of the import that the others belong to
-- KEYS[10] meta      hash of the workflow
-- ARGV[1]  id of this import
-- ARGV[2]  how many milliseconds the gathered keys are kept if the import does not go on
-- Reply    array, of the workflow that exists: when it was created, and its cursor
-- Errors   none

local entries, snapshot, log, commits, refs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local inbox, messages, tags, gathered, meta_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local import_id, kept_ms = ARGV[1], ARGV[2]

local meta = redis.call('HMGET', meta_key, 'created', 'cursor')
local exists = meta[1] or meta[2]
-- On a retry the import has begun already, and may have gathered something since.
if exists or redis.call('HGET', gathered, 'begun') ~= import_id then
  redis.call('UNLINK', entries, snapshot, log, commits, refs, inbox, messages, tags, gathered)
end
if not exists then
  redis.call('HSET', gathered, 'begun', import_id)
  redis.call('PEXPIRE', gathered, kept_ms)
end
return meta
