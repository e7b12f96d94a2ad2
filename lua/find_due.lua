-- Find the workflows of some queues that are due, the oldest first.
--
-- KEYS[1…]  for each queue of a partition:
--           queue     sorted set of its workflows by when they are due; for a leased one, the end of its lease
--           queues    hash of how many workflows each queue of the partition has
-- ARGV[1]   how many at most
-- Reply     array: the server's time (Unix milliseconds); when the next workflow is due, a string, or ''; an array of
--           the queues that are damaged, each as its place, how many workflows it counts, and has, or the error and
--           which of its keys holds a foreign value, 'queue' or 'queues'; an array of the places of queues in whose
--           partition a lease was given later than now; and an array of the workflows, each as the place of its
--           queue, its id, and when it was due
-- Errors    none
--
-- The queues are merged: one is read beyond its head only where its workflows are among the oldest.

--@include numbers
--@include clock

local most = tonumber(ARGV[1])

-- A clock that is this far behind was set back. The clocks of a cluster's nodes may differ by less. Then a lease lasts
-- longer by no more than that, and reading all leases would cost more.
local BEHIND_MS = 1000

-- How many workflows of a queue are read at once, beyond its head.
local PAGE = 16

local _, ms = now()
local next_due, wrong, ahead, heads = nil, {}, {}, {}
local key, place = 1, 1
while true do
  local queue, queues = unpack(KEYS, key, key + 1)
  if not queue then break end
  local counts = redis.pcall('HMGET', queues, string.sub(queue, #queues + 1), 'leased at')
  local size = redis.pcall('ZCARD', queue)
  if counts.err or type(size) == 'table' then
    wrong[#wrong + 1] = {place, counts.err or size.err, counts.err and 'queues' or 'queue'}
  elseif as_count(counts[1]) ~= size then
    wrong[#wrong + 1] = {place, counts[1] or '0', size}
  end
  if type(size) == 'number' and size > 0 then
    local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    -- A score below 0 is no time.
    local due = math.max(tonumber(head[2]), 0)
    if due <= ms then
      heads[#heads + 1] = {due = due, queue = queue, place = place, page = head, at = 1, read = 1}
    elseif due < (next_due or math.huge) then
      next_due = due
    end
    if (as_count(counts[2]) or 0) > ms + BEHIND_MS then ahead[#ahead + 1] = place end
  end
  key, place = key + 2, place + 1
end

local function is_before(one, other)
  if one.due ~= other.due then return one.due < other.due end
  return one.place < other.place
end
table.sort(heads, is_before)

-- Go on to the next workflow of a queue. Return whether it is due.
local function advance(head)
  head.at = head.at + 2
  if not head.page[head.at] then
    head.page = redis.call('ZRANGE', head.queue, head.read, head.read + PAGE - 1, 'WITHSCORES')
    head.at, head.read = 1, head.read + PAGE
  end
  local due = head.page[head.at + 1]
  head.due = due and math.max(tonumber(due), 0)
  return due and head.due <= ms
end

local found = {}
while #found < most and heads[1] do
  local head = heads[1]
  found[#found + 1] = {head.place, head.page[head.at], int(head.due)}
  if advance(head) then
    local number = 1
    while heads[number + 1] and is_before(heads[number + 1], head) do
      heads[number], number = heads[number + 1], number + 1
    end
    heads[number] = head
  else
    table.remove(heads, 1)
  end
end
return {ms, next_due and int(next_due) or '', wrong, ahead, found}
