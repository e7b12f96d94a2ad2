-- The sorted sets of a partition's workflows by their labels, attributes and parents.

-- Return the key of the set of a label, by its field in the meta hash, 'a:<name>' or 'parent', and its value.
local function label_set(queues, field, value)
  local partition = string.sub(queues, 1, -7)
  if field == 'parent' then return partition .. 'children:' .. value end
  return partition .. 'attribute:' .. string.sub(field, 3) .. '=' .. value
end
