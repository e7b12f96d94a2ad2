-- Writes, and leaves nothing: what the connection wrote last is then later than whatever was answered before on it.
--
-- KEYS[1]  touch  a key that never holds anything
-- Reply    nil
-- Errors   none of its own

redis.call('SET', KEYS[1], '')
redis.call('DEL', KEYS[1])
