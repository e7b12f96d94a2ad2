-- Keep a consumer among the live ones of its subscription, or remove it, and count those that are alive.
--
-- KEYS[1]  subscriptions  hash of the namespace's subscriptions and projections: the settings of each, by name
-- KEYS[2]  consumers      sorted set of the subscription's live consumers, '<id>-<ttl in ms>', by when they end
-- ARGV[1]  name of the subscription
-- ARGV[2]  its settings, for the case that it is new
-- ARGV[3]  consumer, '<id>-<ttl in ms>'
-- ARGV[4]  for how many milliseconds it stays alive; '' to remove it
-- Reply    array: the settings that hold, and how many consumers are alive
-- Errors   none
--
-- A consumer with more time left than its full time was counted before the clock was set back: it is over.

--@include numbers
--@include clock

local subscriptions, consumers = KEYS[1], KEYS[2]
local name, settings, consumer, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

redis.call('ZCARD', consumers)
if ttl_ms == '' then
  redis.call('ZREM', consumers, consumer)
else
  redis.call('HSETNX', subscriptions, name, settings)
  local _, ms = now()
  redis.call('ZADD', consumers, int(ms + tonumber(ttl_ms)), consumer)
  redis.call('ZREMRANGEBYSCORE', consumers, '-inf', int(ms))
  local live = redis.call('ZRANGE', consumers, 0, -1, 'WITHSCORES')
  for at = 1, #live, 2 do
    local lasts = as_count(string.match(live[at], '%d+$'))
    if not lasts or tonumber(live[at + 1]) - ms > lasts then redis.call('ZREM', consumers, live[at]) end
  end
end
return {redis.call('HGET', subscriptions, name), redis.call('ZCARD', consumers)}
