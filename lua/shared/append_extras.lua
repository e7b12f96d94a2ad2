-- Include `append_workflow`, `lease`, `facts` and `snapshot_facts` before this part.

-- Return what a commit has besides its entries. `at` is the place of its first fact, and `key` that of its first
-- further key.
local function extras_of(at, key, given, time_us)
  local leases, snapshot = KEYS[key], KEYS[key + 1]
  local count, refs = tonumber(given.f or given.a or 0), key + (given.s and 2 or 1)
  return {
    leases = leases, snapshot = given.s and snapshot, data = given.s, packed = given.k,
    refs = refs, facts = count, ahead = given.a,
    time_us = tonumber(time_us), first_fact = at, next_at = at + 2 * count,
    next_key = refs + (count == 0 and (given.k and 1 or 0) or given.a and 1 or 1 + 2 * count),
  }
end

-- Return the error that keeps the extras from being stored, or nothing.
local function extras_error(w, extras)
  local refs = KEYS[extras.refs]
  local found = extras.facts > 0 and try('XLEN', w.events)
  if type(found) == 'table' then return found.err end
  found = extras.snapshot and try('HLEN', extras.snapshot)
  if type(found) == 'table' then return found.err end
  found = extras.packed and snapshot_refs_error(extras.packed, refs, w.meta, extras.first_fact, extras.facts)
  return found or facts_error(extras.first_fact, extras.refs, extras.facts, extras.ahead, w.meta)
end

local function store_extras(w, cursor, extras, lease)
  local fact_us = math.max(micros, extras.time_us)
  store_facts(extras.first_fact, extras.refs, extras.facts, extras.ahead, fact_us, w.meta, int(cursor))
  if extras.snapshot then
    call('HSET', extras.snapshot, 'cursor', int(cursor), 'time', int(ms), 'data', extras.data)
    store_snapshot_refs(extras.snapshot, extras.packed)
    call('HSET', w.meta, 'snapshot', int(cursor))
  end
  extend_used_lease(lease, ms, w.id, w.meta, extras.leases, w.partition)
end
