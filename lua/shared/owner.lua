-- Include `numbers` before this part.

-- Return an owner as an error can carry it: each byte that is no letter or digit becomes '%' and two hex digits.
local function percent_encoded(owner)
  return (string.gsub(owner or '', '%W', function(char) return string.format('%%%02X', string.byte(char)) end))
end

-- Note in the partition when a lease was last given or extended, so that a claim notices that the clock was set back.
local function note_lease_time(partition, ms)
  local last = as_count(redis.call('HGET', partition, 'leased')) or 0
  if ms > last then redis.call('HSET', partition, 'leased', int(ms)) end
end
