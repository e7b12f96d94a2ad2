-- Create a namespace with its settings, unless it exists. Return the settings that hold.
--
-- KEYS[1]  config      hash, or its copy: format, partitions, created (Unix microseconds)
-- ARGV[1]  format      version of the data format
-- ARGV[2]  partitions  how many partitions the namespace has
-- Reply    array: format, partitions
-- Errors   none of its own

--@include numbers
--@include clock

local config = KEYS[1]
local format, partitions = ARGV[1], ARGV[2]

if redis.call('EXISTS', config) == 0 then
  redis.call('HSET', config, 'format', format, 'partitions', partitions, 'created', int((now())))
end
return redis.call('HMGET', config, 'format', 'partitions')
