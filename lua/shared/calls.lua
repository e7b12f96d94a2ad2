-- Include `numbers` before this part.
--
-- Replies to calls that were sent again. The network may deliver a first try after its retry, after an error, or
-- after the workflow was deleted. So the partition keeps the reply to a retry, and a first try that may be late looks
-- for it: always where the meta hash of the workflow has `retried`, and where it creates a workflow. A partition
-- keeps the replies to its last MOST_CALLS retries, in the order in which they came and not by time.
local MOST_CALLS = 2048

-- Keep the reply to a retry in place of the oldest one, and have first tries for the workflow look for theirs.
local function keep_reply(partition, id, reply, meta_key, exists)
  -- This call is sent again with the right key, as the same call.
  if type(reply) == 'string' and string.find(reply, '^OTHER_KEY ') then return end
  local text = type(reply) == 'number' and int(reply) or reply or ''
  local number = redis.pcall('HINCRBY', partition, 'next', 1)
  -- A full server keeps nothing. The retry still has its reply.
  if type(number) == 'table' then return end
  local slot = number % MOST_CALLS
  local oldest = redis.call('HGET', partition, slot)
  if oldest then redis.call('HDEL', partition, 'c' .. oldest) end
  redis.call('HSET', partition, slot, id, 'c' .. id, text)
  if exists then redis.call('HSET', meta_key, 'retried', '1') end
end
