-- Deletes a workflow: every key of it, and its place in the index.
--
-- KEYS[1]  events
-- KEYS[2]  meta      hash of the workflow: created
-- KEYS[3]  snapshot
-- KEYS[4]  log
-- KEYS[5]  commits
-- KEYS[6]  index     sorted set of the partition's workflows by the time of their last write
-- ARGV[1]  workflow id
-- ARGV[2]  when the workflow to be deleted was created: one made under this id since then is another, and stays
-- Reply    integer: 1 if it was deleted, 0 if it was gone
-- Errors   none of its own

if redis.call('HGET', KEYS[2], 'created') ~= ARGV[2] then return 0 end
-- UNLINK would delete a foreign value of any type; reading first refuses it.
redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[3])
redis.call('STRLEN', KEYS[4])
redis.call('HLEN', KEYS[5])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
return 1
