-- Read the further arguments of a commit. The script's loop includes this part: `at` and `key` are the places of the
-- commit's first argument and first key. `given` has its options by their letters.
  local given, first, feed_count = NONE, at + 5, nil
  if options == 'p' then
    -- A plain commit of a namespace with a feed. The general way would take a twentieth longer.
    local count = ARGV[first]
    feed_count, first = count, first + 1
  elseif options ~= '' then
    given = {}
    for letter in string.gmatch(options, '.') do
      local value = ARGV[first]
      given[letter], first = value, first + 1
    end
  end
  -- Whether the commit needs the functions for extras, and whether its last entry has further fields.
  local extras, has_fields = false, false
  local call_id, expected, metadata, last = nil, nil, nil, first + 2
  if given ~= NONE then
    call_id, expected, metadata = given.c, given.e, given.m
    if given.n then last = first - 1 + 3 * given.n end
    feed_count = feed_count or given.p
    extras = given.l or given.q or given.s or given.f or given.a or given.x or given.r or given.t or given.u or given.A
    has_fields = given.T or given.P
  end
  local next_at, next_key = last + 1, key + 4
  if feed_count then next_key = next_key + 1 end
  local commits = feed_count and after_feed or feed
  if call_id then next_key = next_key + 1 end
