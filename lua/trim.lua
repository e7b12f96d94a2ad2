-- Trim the commits that a workflow's snapshot covers, note how far, and release the facts that only they referred to.
--
-- KEYS[1]  events     stream of the workflow
-- KEYS[2]  meta       hash of the workflow: created, retried, snapshot, refs, trimmed, trimmed_ms, fence, lease_until,
--                     expires, tags, largest, imported, imported_to
-- KEYS[3]  snapshot   hash: cursor, data, refs
-- KEYS[4]  leases     sorted set of the partition's leased workflows by the end of their leases
-- KEYS[5]  queues     hash of how many workflows each queue of the partition has
-- KEYS[6]  queue      sorted set of the queue's workflows by when they are due
-- KEYS[7]  partition  hash of the partition: the replies to retries
-- KEYS[8]  refs       sorted set of the hashes of the facts that the workflow refers to, by the last cursor that does
-- KEYS[9]  tags       sorted set of the workflow's tags, see lua/find.lua
-- KEYS[10] tagged     index of all tags, see lua/find_where.lua; the tags again, if the namespace has none
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  lease, '<fencing token> <milliseconds>', or ''
-- ARGV[5]  how many of the events that the snapshot covers to keep
-- ARGV[6]  the caller's time (Unix microseconds)
-- Reply    integer: the cursor of the last trimmed event, 0 if none is; the same as a negative number if more is left
--          to trim; nil if there is no such workflow
-- Errors   LEASE_LOST <owner, percent-encoded>; OTHER_KEY <place> <key>; DAMAGED <what>; END_REACHED
--
-- A commit that the snapshot covers only in part stays whole. If the workflow has tags, a call reads the entries that
-- it trims, and so trims a bounded number of them.
--
-- A reference is removed if its last cursor is trimmed and the snapshot does not refer to the fact. If the snapshot
-- does not tell its references, the script searches its data for the fact's hash.

--@include numbers
--@include clock
--@include calls
--@include replies
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include lease
--@include snapshot_refs
--@include tags

local events, meta_key, snapshot, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queues, queue, partition = KEYS[5], KEYS[6], KEYS[7]
local refs, tags, tagged = KEYS[8], KEYS[9], KEYS[10]
local workflow, call_id, retry, by_lease, keep, caller_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- How many references one call reviews, and how many bytes of data it searches for them. The bounds limit the script's
-- time.
local MOST_REVIEWED, MOST_SEARCHED = 1024, 33554432
-- How many entries with tags one call trims, and how many bytes of them, and the rest of the commit that it reaches.
local MOST_TRIMMED, MOST_TRIMMED_BYTES = 256, 1048576

local meta = redis.call('HMGET', meta_key, 'created', 'trimmed', 'retried', 'expires')
if retry ~= '' or meta[3] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
local micros, ms = now()
if is_over(meta[4], math.min(micros, tonumber(caller_us))) then return redis.error_reply('END_REACHED ') end

local lease = lease_of(by_lease, workflow, meta_key, leases, queues, queue, 6)

-- Return a function that tells whether the snapshot refers to a fact, and for how many facts it may be called.
local function snapshot_filter()
  local packed = redis.call('HGET', snapshot, 'refs')
  if packed then
    local hashes, kept = unpack_refs(packed), {}
    for _, hash in ipairs(hashes or {}) do kept[hash] = true end
    return function(hash) return kept[hash] end, hashes and MOST_REVIEWED or 0
  end
  local size = redis.call('HSTRLEN', snapshot, 'data')
  if size > MOST_SEARCHED then return nil, 0 end
  local data = redis.call('HGET', snapshot, 'data') or ''
  return function(hash) return string.find(data, hash, 1, true) end,
    math.min(MOST_REVIEWED, math.floor(MOST_SEARCHED / math.max(size, 1)))
end

-- Remove the references to facts that no event after the cursor `trimmed` refers to, and the snapshot neither.
local function release(trimmed)
  local count = redis.call('ZCOUNT', refs, '-inf', int(trimmed))
  -- Without its last snapshot, nothing tells which facts the state needs.
  local saved = redis.call('HGET', snapshot, 'cursor')
  if count == 0 or not saved or saved ~= redis.call('HGET', meta_key, 'snapshot') then return end
  local is_kept, most = snapshot_filter()
  if most == 0 then return end
  -- Of several pages of references, the time tells which one: so those that stay do not hide the others for ever.
  local first = ms % math.ceil(count / most) * most
  local released = {}
  for _, hash in ipairs(redis.call('ZRANGE', refs, int(first), int(math.min(first + most, count) - 1))) do
    if not is_kept(hash) then released[#released + 1] = hash end
  end
  if #released == 0 then return end
  redis.call('ZREM', refs, unpack(released))
  local counted = as_count(redis.call('HGET', meta_key, 'refs'))
  if counted then redis.call('HINCRBY', meta_key, 'refs', -math.min(counted, #released)) end
end

-- Remove the tags of the commits up to the entry with the ID `last_id`, or of some of them. Return the ID of the last
-- entry whose tags are removed, and whether there are more.
local function remove_tags(last_id)
  local meta = redis.call('HMGET', meta_key, 'tags', 'largest', 'imported', 'imported_to')
  local count = as_count(meta[1])
  if not count or count == 0 then return last_id end
  local page_size = math.max(1, math.min(MOST_TRIMMED, MOST_TRIMMED_BYTES / math.max(1, as_count(meta[2]) or 1)))
  -- If the user may not use XTRIM, nothing is changed.
  redis.call('XTRIM', events, 'MINID', '=', '0-0')
  local after, commit, seen, removed = '-', nil, 0, 0
  local reached, has_more
  repeat
    local page = redis.call('XRANGE', events, after, last_id, 'COUNT', int(math.floor(page_size)))
    for _, entry in ipairs(page) do
      local id, fields = entry[1], entry[2]
      if fields[4] ~= commit and seen >= math.floor(page_size) then
        has_more = true
        break
      end
      reached, commit, seen, after = id, fields[4], seen + 1, '(' .. id
      removed = removed + remove_entry_tags(entry, workflow, tags, tagged, meta[3], meta[4])
    end
  until has_more or #page < math.floor(page_size)
  if removed > 0 and redis.call('HINCRBY', meta_key, 'tags', -math.min(count, removed)) == 0 then
    redis.call('HDEL', meta_key, 'tags')
  end
  return reached, has_more
end

-- Trim the stream after the cursor `trimmed`, up to `covered`. Return the cursor of the last trimmed event.
local function trim(trimmed, covered)
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

  local last_id, has_more = remove_tags(last[1])
  local place, stamp = string.match(last_id, '(%d+)-(%d+)')
  redis.call('XTRIM', events, 'MINID', '=', int(tonumber(place) + 1) .. '-0')
  redis.call('HSET', meta_key, 'trimmed', place, 'trimmed_ms', stamp)
  extend_used_lease(lease, ms)
  return tonumber(place), has_more
end

local function act()
  local problem = lease_error(lease)
  if problem then return problem end
  if not meta[1] then return false end
  local trimmed = as_count(meta[2])
  local covered = as_count(redis.call('HGET', snapshot, 'cursor'))
  if not trimmed or not covered then return 'DAMAGED cursor' end
  redis.call('ZCARD', refs)
  redis.call('ZCARD', tags)
  redis.call('ZCARD', tagged)
  local has_more
  trimmed, has_more = trim(trimmed, math.max(0, covered - tonumber(keep)))
  release(trimmed)
  return has_more and -trimmed or trimmed
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return as_reply(reply)
