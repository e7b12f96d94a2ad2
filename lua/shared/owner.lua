-- Include `numbers` before this part.

-- Return an owner as an error can carry it: each byte that is no letter or digit becomes '%' and two hex digits.
local function percent_encoded(owner)
  return (string.gsub(owner or '', '%W', function(char) return string.format('%%%02X', string.byte(char)) end))
end
