-- Goes with the calls.

-- The reply that was given to a call's retry: an integer, an error's text, or false for nil; nothing if none is known.
local function remembered(partition, id)
  local said = redis.call('HGET', partition, 'c' .. id)
  if said then return said ~= '' and (tonumber(said) or said) end
end

-- A script's reply: an error's text becomes an error.
local function as_reply(reply)
  if type(reply) == 'string' then return redis.error_reply(reply) end
  return reply
end
