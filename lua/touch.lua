-- Write, and leave nothing: the last write of the connection is then later than all that it was answered before.
--
-- KEYS[1]  touch  a key that never holds anything
-- Reply    nil
-- Errors   none

local key = KEYS[1]

redis.call('SET', key, '')
redis.call('DEL', key)
