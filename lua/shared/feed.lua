-- Include `numbers` before this part. A namespace without a feed passes the index in place of the feed.

-- Return the error that keeps an entry from being added to a partition's feed, or nothing. A foreign value at a key,
-- and a user who may not count, are rejected here, before anything is written.
local function feed_error(feed, index, partition)
  if feed == index then return nil end
  local last = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]
  local position = redis.call('HINCRBY', partition, 'position', 0)
  if last and tonumber(string.match(last[1], '^%d+')) > position then return 'DAMAGED position' end
end

-- Add an entry to a partition's feed: for a change of a workflow that takes so many positions. Return the position.
local function add_to_feed(feed, index, partition, ms, positions, what, cursor, workflow)
  if feed == index then return nil end
  local position = redis.call('HINCRBY', partition, 'position', positions)
  redis.call('XADD', feed, int(position) .. '-' .. int(ms), what, int(cursor) .. ' ' .. workflow)
  return position
end
