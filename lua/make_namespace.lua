-- Makes a namespace with its settings, unless it is there; answers the settings that hold.
--
-- KEYS[1]  config      hash, or its copy: format, partitions, created (Unix microseconds)
-- ARGV[1]  format      version of the data format
-- ARGV[2]  partitions  how many partitions the namespace has
-- Reply    array: format, partitions
-- Errors   none of its own

--@include numbers
--@include clock

if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'partitions', ARGV[2], 'created', int((now())))
end
return redis.call('HMGET', KEYS[1], 'format', 'partitions')
