-- Return a number as Redis takes it, with all of its digits. Lua keeps 14 of them where it converts a number to text.
local function int(number) return string.format('%.0f', number) end

-- Return a stored count as a number: 0 for nothing, and nil or false for a value that is no count.
local function as_count(value)
  if not value then return 0 end
  return #value <= 16 and string.match(value, '^%d+$') and tonumber(value)
end
