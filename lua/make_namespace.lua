-- Create a namespace with its settings, unless it exists. Return the settings that hold.
--
-- KEYS[1]  config      hash, or its copy: format, partitions, feed, feed_days, created (Unix microseconds)
-- ARGV[1]  format      version of the data format
-- ARGV[2]  partitions  how many partitions the namespace has
-- ARGV[3]  feed        '1' if it has a feed, '0' if not
-- ARGV[4]  feed_days   for how many days the feed keeps its entries, or '' to keep all
-- Reply    array: format, partitions, feed
-- Errors   none

--@include numbers
--@include clock

local config = KEYS[1]
local format, partitions, feed, feed_days = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('EXISTS', config) == 0 then
  redis.call('HSET', config, 'format', format, 'partitions', partitions, 'feed', feed, 'feed_days', feed_days,
    'created', int((now())))
end
return redis.call('HMGET', config, 'format', 'partitions', 'feed')
