-- Include `calls` before this part.

-- Return the kept reply to a call: an integer, the text of an error, or false for nil; nothing if no reply is kept.
local function kept_reply(partition, id)
  local reply = redis.call('HGET', partition, 'c' .. id)
  if reply then return reply ~= '' and (tonumber(reply) or reply) end
end

-- Return a script's reply: the text of an error becomes an error.
local function as_reply(reply)
  if type(reply) == 'string' then return redis.error_reply(reply) end
  return reply
end
