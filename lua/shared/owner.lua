-- Goes with the numbers.

-- An owner as an error can carry it: bytes that are no letter or digit are written as '%' and two hex digits.
local function spelled(owner)
  return (string.gsub(owner or '', '%W', function(char) return string.format('%%%02X', string.byte(char)) end))
end

-- Notes in the partition when a lease was last given or prolonged, so that claims notice that the clock was set back.
local function note_lease(partition, ms)
  if ms > (whole(redis.call('HGET', partition, 'leased')) or 0) then redis.call('HSET', partition, 'leased', int(ms)) end
end
