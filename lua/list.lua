-- Return a page of a sorted set of a partition's workflows, and the workflows whose end is reached.
--
-- KEYS[1]  set       the sorted set
-- KEYS[2]  expiring  sorted set of the partition's workflows that expire, by when (Unix milliseconds)
-- KEYS[3]  counts    hash that counts the members of the set
-- ARGV[1]  'rising' for the lowest score first, or 'falling'
-- ARGV[2]  the score at which the page begins
-- ARGV[3]  the last member that was read, '' if none was. If it still has that score, the page begins behind it
-- ARGV[4]  how many members at most
-- ARGV[5]  how many more, if the page begins with the score, because so many with that score were read already
-- ARGV[6]  the field of the hash with the count, '' if the set is not counted
-- ARGV[7]  the caller's time (Unix milliseconds)
-- Reply    array: how many members were read at most; workflow ids, each followed by its score; the ids of workflows
--          whose end is reached
-- Errors   DAMAGED <what>

--@include numbers
--@include clock

local set, expiring, counts = KEYS[1], KEYS[2], KEYS[3]
local order, begin, last, limit, more = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local field, caller_ms = ARGV[6], tonumber(ARGV[7])

-- The rest of them comes with the next page.
local MOST_ENDED = 1000

if field ~= '' and redis.call('ZCARD', set) ~= as_count(redis.call('HGET', counts, field)) then
  return redis.error_reply('DAMAGED ' .. string.match(set, '}:(.*)$'))
end

local function page()
  local is_rising = order == 'rising'
  local score = last ~= '' and redis.call('ZSCORE', set, last)
  if score and tonumber(score) == tonumber(begin) then
    local first = redis.call(is_rising and 'ZRANK' or 'ZREVRANK', set, last) + 1
    return limit, redis.call(is_rising and 'ZRANGE' or 'ZREVRANGE', set, first, first + limit - 1, 'WITHSCORES')
  end
  local command, upper = is_rising and 'ZRANGEBYSCORE' or 'ZREVRANGEBYSCORE', is_rising and '+inf' or '-inf'
  return limit + more, redis.call(command, set, begin, upper, 'WITHSCORES', 'LIMIT', 0, limit + more)
end

local _, ms = now()
local asked, found = page()
-- Both clocks must have reached an end, see lua/expire.lua.
local ended = int(math.min(ms, caller_ms))
return {asked, found, redis.call('ZRANGEBYSCORE', expiring, '-inf', ended, 'LIMIT', 0, MOST_ENDED)}
