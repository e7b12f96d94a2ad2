-- Trim the commits that a workflow's snapshot covers, and note how far.
--
-- KEYS[1]  events     stream of the workflow
-- KEYS[2]  meta       hash of the workflow: created, retried, trimmed, trimmed_ms, fence, lease_until, expires
-- KEYS[3]  snapshot   hash: cursor
-- KEYS[4]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[5]  queues     hash of how many workflows each queue of the partition has
-- KEYS[6]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[7]  partition  hash of the partition: the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  how many of the events that the snapshot covers to keep
-- ARGV[6]  the caller's time (Unix microseconds)
-- Reply    integer: the cursor of the last trimmed event, 0 if none is; nil if there is no such workflow
-- Errors   LEASE_LOST <owner, percent-encoded>; OTHER_KEY <place> <key>; DAMAGED <what>; END_REACHED
--
-- A commit that the snapshot covers only in part stays whole.

--@include numbers
--@include clock
--@include calls
--@include replies
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include lease

local events, meta_key, snapshot, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queues, queue, partition = KEYS[5], KEYS[6], KEYS[7]
local workflow, call_id, retry, by_lease, keep, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local meta = redis.call('HMGET', meta_key, 'created', 'trimmed', 'retried', 'expires')
if retry ~= '' or meta[3] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[4], math.min(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end

local lease = lease_of(by_lease, workflow, meta_key, leases, queues, queue, 6)

local function act()
  local problem = lease_error(lease)
  if problem then return problem end
  if not meta[1] then return false end
  local trimmed = as_count(meta[2])
  local covered = as_count(redis.call('HGET', snapshot, 'cursor'))
  if not trimmed or not covered then return 'DAMAGED cursor' end
  covered = math.max(0, covered - tonumber(keep))
  local last = redis.call('XREVRANGE', events, int(covered), '-', 'COUNT', 1)[1]
  if not last then return trimmed end
  -- A large commit is several entries. If another one of the last entry's commit follows, the whole commit stays.
  local next_entry = redis.call('XRANGE', events, '(' .. last[1], '+', 'COUNT', 1)[1]
  if next_entry then
    local cut = next_entry[2][4]
    while last and last[2][4] == cut do
      last = redis.call('XREVRANGE', events, '(' .. last[1], '-', 'COUNT', 1)[1]
    end
    if not last then return trimmed end
  end

  local place, stamp = string.match(last[1], '(%d+)-(%d+)')
  trimmed = tonumber(place)
  redis.call('XTRIM', events, 'MINID', '=', int(trimmed + 1) .. '-0')
  redis.call('HSET', meta_key, 'trimmed', place, 'trimmed_ms', stamp)
  extend_used_lease(lease, ms)
  return trimmed
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return as_reply(reply)
