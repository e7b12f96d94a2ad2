-- Goes with the numbers.
--
-- Calls that were sent again. The network may deliver a first try after its retry, after a refusal, or after the workflow
-- was deleted. So the reply to a retry is kept in the partition, and a first try that may be late looks itself up: always
-- where the workflow's meta hash says `retried`, and where it makes a workflow. The replies to the last MOST_CALLS retries
-- of a partition are kept, in the order in which they came and not by time.
local MOST_CALLS = 2048

-- Keeps the reply to a retry in place of the oldest one, and has first tries of the workflow look themselves up.
local function remember(partition, id, reply, meta_key, exists)
  local said = type(reply) == 'number' and int(reply) or reply or ''
  local number = redis.pcall('HINCRBY', partition, 'next', 1)
  -- A full server keeps nothing. What a retry has found is its reply all the same.
  if type(number) == 'table' then return end
  local slot = number % MOST_CALLS
  local oldest = redis.call('HGET', partition, slot)
  if oldest then redis.call('HDEL', partition, 'c' .. oldest) end
  redis.call('HSET', partition, slot, id, 'c' .. id, said)
  if exists then redis.call('HSET', meta_key, 'retried', '1') end
end
