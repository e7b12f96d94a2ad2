-- Return the value of a further field of an entry, behind its header, its payload and its commit id; or nothing.
local function field_of(fields, name)
  for place = 5, #fields, 2 do
    if fields[place] == name then return fields[place + 1] end
  end
end

-- Return the entries of a commit with tags, by the cursor after it; none if the stream does not have it.
local function commit_entries(stream, cursor)
  local last = redis.call('XRANGE', stream, cursor, cursor)[1]
  if not last then return {} end
  local count = field_of(last[2], 'n')
  if not count then return {last} end
  local entries, found = {}, redis.call('XREVRANGE', stream, last[1], '-', 'COUNT', count)
  for place = #found, 1, -1 do entries[#entries + 1] = found[place] end
  return entries
end
