-- A number as Redis takes it; written out by itself, Lua keeps 14 digits of one, and passed as an argument, all.
local function int(number) return string.format('%.0f', number) end

-- A count as it is kept: nothing is 0, and what is no count is nil.
local function whole(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end
