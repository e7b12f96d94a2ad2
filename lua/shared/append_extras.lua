-- Include `append_workflow`, `append_labels`, `queue`, `other_key`, `lease`, `facts`, `snapshot_facts` and `sliding`
-- before this part.

-- Return what a commit has besides its entries. `at` is the place of its first fact, and `key` that of its first
-- further key; `first_key` is the place of the first key of all.
local function extras_of(w, at, key, first_key, given, time_us)
  local leases, queues, queue, target = unpack(KEYS, key, key + 3)
  local snapshot_at = given.q and key + 4 or key + 3
  local snapshot = unpack(KEYS, snapshot_at, snapshot_at)
  local place = key + 3 - first_key
  local count, refs = tonumber(given.f or given.a or 0), snapshot_at + (given.s and 1 or 0)
  -- The references have a key if there are facts, or the snapshot names some. Facts not stored ahead have two each.
  local fact_keys = count > 0 and not given.a and 2 * count or 0
  local inbox_at = refs + ((count > 0 or given.k) and 1 or 0) + fact_keys
  local messages = tonumber(given.r or 0)
  local expiring_at = inbox_at + (given.r and 1 or 0)
  local inbox, expiring = unpack(KEYS, inbox_at, inbox_at), unpack(KEYS, expiring_at, expiring_at)
  local labels_at, label_key = at + 2 * count + messages, expiring_at + (given.x and 1 or 0)
  local labels = labels_of(given.A, label_key, labels_at, first_key)
  return {
    lease = lease_of(given.l, w.id, w.meta, leases, queues, queue, place),
    queues = queues, queue = queue, queue_at = place, target = given.q and target, due = given.q,
    snapshot = given.s and snapshot, data = given.s, packed = given.k, refs = refs, facts = count, ahead = given.a,
    time_us = tonumber(time_us), first_fact = at, labels = labels,
    inbox = given.r and inbox, messages = messages, first_message = at + 2 * count,
    unless_cancelled = given.u, ends_timer = given.t, expiring = given.x and expiring, kept_ms = given.x,
    next_at = labels_at + 2 * #labels, next_key = label_key + 2 * #labels,
  }
end

-- Return the error that keeps a workflow from being put in a queue, or nothing.
local function target_error(w, extras)
  local meta = call('HMGET', w.meta, 'queue', 'completed', 'parked', 'lease_until', 'lease_ms', 'inbox')
  if meta[2] then return 'WORKFLOW_COMPLETED ' end
  local ends = as_count(meta[4]) or 0
  extras.is_parked = meta[3]
  -- Those that this commit leaves in the inbox.
  extras.has_messages = (as_count(meta[6]) or 0) > extras.messages
  extras.ends = ends > ms and ends - ms <= (as_count(meta[5]) or 0) and ends
  local failure = queue_error(extras.queues, extras.queue, meta[1], extras.queue_at)
    or queue_error(extras.queues, extras.target)
  if failure then return failure end
  local names = {queue_name(extras.queues, extras.queue), queue_name(extras.queues, extras.target)}
  local counts = call('HMGET', extras.queues, unpack(names))
  return not (as_count(counts[1]) and as_count(counts[2])) and 'DAMAGED queues' or nil
end

-- Return the error that keeps messages from being consumed, or nothing. Count those that ask to cancel the workflow.
local function messages_error(w, extras)
  extras.cancels = 0
  -- Of no message: if the user may not use XDEL, nothing is changed.
  local found = try('XDEL', extras.inbox, '0-0')
  if type(found) == 'table' then return found.err end
  local counts = call('HMGET', w.meta, 'inbox', 'cancel')
  local waiting = as_count(counts[1])
  if not (waiting and as_count(counts[2])) then return 'DAMAGED meta hash' end
  if call('XLEN', extras.inbox) < waiting then return 'DAMAGED inbox' end
  for number = 1, extras.messages do
    local id = ARGV[extras.first_message + number - 1]
    local entry = call('XRANGE', extras.inbox, id, id)[1]
    if not entry then return 'MESSAGE_GONE ' .. id end
    local fields = entry[2]
    if fields[#fields - 1] == 'c' then extras.cancels = extras.cancels + 1 end
  end
end

-- Remove messages from the inbox.
local function consume_messages(w, extras)
  for number = 1, extras.messages do
    local id = ARGV[extras.first_message + number - 1]
    call('XDEL', extras.inbox, id)
  end
  if call('HINCRBY', w.meta, 'inbox', -extras.messages) <= 0 then call('HDEL', w.meta, 'inbox', 'woken') end
  if extras.cancels > 0 and call('HINCRBY', w.meta, 'cancel', -extras.cancels) <= 0 then
    call('HDEL', w.meta, 'cancel')
  end
end

-- Return the error that keeps the extras from being stored, or nothing.
local function extras_error(w, extras, cursor)
  local refs = KEYS[extras.refs]
  local found = extras.facts > 0 and try('XLEN', w.events)
  if type(found) == 'table' then return found.err end
  found = extras.snapshot and try('HLEN', extras.snapshot)
  if type(found) == 'table' then return found.err end
  found = extras.expiring and try('ZCARD', extras.expiring)
  if type(found) == 'table' then return found.err end
  if extras.unless_cancelled and call('HGET', w.meta, 'cancel') then return 'CANCEL_REQUESTED ' end
  found = extras.inbox and messages_error(w, extras) or extras.target and target_error(w, extras)
    or labels_error(w, extras.labels, extras.queues, cursor)
  found = found or extras.packed and snapshot_refs_error(extras.packed, refs, w.meta, extras.first_fact, extras.facts)
  return found or facts_error(extras.first_fact, extras.refs, extras.facts, extras.ahead, w.meta)
end

-- Put the workflow in the queue of the commit.
local function store_target(w, extras)
  call('HSET', w.meta, 'queue', queue_name(extras.queues, extras.target))
  if extras.is_parked then return end
  -- A lease of this commit is extended there.
  if extras.lease then extras.lease.queue = extras.target end
  if extras.queue ~= extras.target then remove_from_queue(extras.queues, extras.queue, w.id) end
  local due = extras.ends and int(extras.ends) or due_at(extras.due, ms, extras.has_messages)
  put_in_queue(extras.queues, extras.target, w.id, due)
  hint(extras.queues, extras.target, due, ms)
end

local function store_extras(w, cursor, extras)
  local fact_us = math.max(micros, extras.time_us)
  store_facts(extras.first_fact, extras.refs, extras.facts, extras.ahead, fact_us, w.meta, int(cursor))
  if extras.snapshot then
    call('HSET', extras.snapshot, 'cursor', int(cursor), 'time', int(ms), 'data', extras.data)
    store_snapshot_refs(extras.snapshot, extras.packed)
    call('HSET', w.meta, 'snapshot', int(cursor))
  end
  if extras.target then store_target(w, extras) end
  if extras.expiring then
    set_end(w.meta, extras.expiring, w.id, math.max(micros, extras.time_us), extras.kept_ms)
  end
  if extras.inbox then consume_messages(w, extras) end
  if extras.ends_timer then call('HDEL', w.meta, 'timer') end
  store_labels(w, extras.labels)
  extend_used_lease(extras.lease, ms)
  -- A commit under a lease is progress.
  if extras.lease then call('HDEL', w.meta, 'attempts') end
end
