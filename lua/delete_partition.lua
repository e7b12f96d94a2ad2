-- Delete the keys that the workflows of a partition share, in one step.
--
-- KEYS[1]  queues  hash of how many workflows each queue of the partition has
-- KEYS[2…] the others: index, leases, parked, expiring, completed, partition, feed and tags if the namespace has them;
--          and each queue
-- Reply    array: the names of queues whose keys are missing in this call, and then nothing was deleted; or empty
-- Errors   none

local queues = KEYS[1]

local known, key = {}, 2
while true do
  local other = unpack(KEYS, key, key)
  if not other then break end
  known[other] = true
  key = key + 1
end
local names = redis.pcall('HKEYS', queues)
-- A foreign value there names no queues, and is deleted with the rest.
if names.err and not string.find(names.err, 'WRONGTYPE', 1, true) then return redis.error_reply(names.err) end
local missing = {}
for _, name in ipairs(names) do
  local is_queue = not string.find(name, ' ', 1, true)
  if is_queue and not known[string.sub(queues, 1, -2) .. ':' .. name] then missing[#missing + 1] = name end
end
if #missing > 0 then return missing end
redis.call('UNLINK', queues)
for other in pairs(known) do redis.call('UNLINK', other) end
return {}
