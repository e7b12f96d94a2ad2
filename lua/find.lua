-- Find the commits that carry a tag, or a tag with some prefix, and read their events.
--
-- KEYS[1]  tags    sorted set of the workflow's tags, all with the score 0: the tag, a NUL, and the cursor after
--                  its commit in 16 digits
-- KEYS[2]  events  stream of the workflow
-- KEYS[3]  meta    hash of the workflow: created, expires, tags
-- ARGV[1]  the first member to find, '[<member>', or '(<member>' after one
-- ARGV[2]  the last one, likewise
-- ARGV[3]  '1' to begin with the last one
-- ARGV[4]  how many to find at most
-- Reply    array: when the workflow was created, or ''; when it expires, or ''; 1 if there may be more members, else
--          0. Then for each member that is found: the member; how many entries its commit has; and for each of them
--          its ID, header, payload, and metadata ('' for none)
-- Errors   DAMAGED <what>
--
-- A reply holds few large commits: the caller asks for those after the last member.

--@include numbers
--@include commit_entries

local tags, events, meta_key = KEYS[1], KEYS[2], KEYS[3]
local first, last, backwards, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local call = redis.call

-- How many bytes of entries one call reads, and one more commit.
local MOST_BYTES = 1048576

local meta = call('HMGET', meta_key, 'created', 'expires', 'tags')
local count = as_count(meta[3])
if not count then return redis.error_reply('DAMAGED meta hash') end
if call('ZCARD', tags) ~= count then return redis.error_reply('DAMAGED tags') end
local found
if backwards == '1' then
  found = call('ZREVRANGEBYLEX', tags, last, first, 'LIMIT', 0, most)
else
  found = call('ZRANGEBYLEX', tags, first, last, 'LIMIT', 0, most)
end
local reply, size, place = {meta[1] or '', meta[2] or '', 0}, 3, 1
local bytes = 0
while found[place] and bytes < MOST_BYTES do
  local member = found[place]
  local entries = commit_entries(events, string.match(string.sub(member, -16), '[1-9]%d*$') or '0')
  if #entries == 0 then return redis.error_reply('DAMAGED tags') end
  reply[size + 1], reply[size + 2] = member, #entries
  size = size + 2
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    reply[size + 1], reply[size + 2], reply[size + 3] = entry[1], fields[1], fields[2]
    reply[size + 4] = field_of(fields, 'm') or ''
    size, bytes = size + 4, bytes + #fields[1] + #fields[2]
  end
  place = place + 1
end
if found[place] or #found == most then reply[3] = 1 end
return reply
