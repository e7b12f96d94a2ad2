-- Set the time at which a workflow is deleted, its end; or remove it.
--
-- KEYS[1]  meta       hash of the workflow: created, retried, expires, touched (Unix milliseconds), sliding
-- KEYS[2]  expiring   sorted set of the partition's workflows that expire, by when
-- KEYS[3]  partition  hash of the partition: the replies to retries
-- ARGV[1]  workflow id
-- ARGV[2]  id of this call
-- ARGV[3]  '' on a first try
-- ARGV[4]  how many milliseconds from now on the workflow is kept, or '' to remove its end
-- ARGV[5]  '1' to let each write extend the lifetime: the workflow is kept for as long from its last write on. Or ''
-- ARGV[6]  the caller's time (Unix microseconds)
-- ARGV[7]  the end that this one replaces; a workflow with another end keeps it. '' to replace any end
-- Reply    integer: 1, or 0 if another end stays; nil if there is no such workflow
-- Errors   END_REACHED
--
-- The end counts from the later one of the server's clock and the caller's. The workflow is deleted once both clocks
-- have reached it. So neither one clock that is set forward nor a failover to a server whose clock is ahead brings it
-- closer.

--@include numbers
--@include clock
--@include sliding
--@include calls
--@include replies

local meta_key, expiring, partition = KEYS[1], KEYS[2], KEYS[3]
local workflow, call_id, retry, kept_ms, slides = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local caller_us, replaced = ARGV[6], ARGV[7]

local meta = redis.call('HMGET', meta_key, 'created', 'retried', 'expires')
if retry ~= '' or meta[2] then
  local reply = kept_reply(partition, call_id)
  if reply ~= nil then return as_reply(reply) end
end
local micros = now()
if replaced == '' and is_over(meta[3], math.min(micros, tonumber(caller_us))) then
  return redis.error_reply('END_REACHED ')
end

local function act()
  if not meta[1] then return false end
  if replaced ~= '' and meta[3] ~= replaced then return 0 end
  redis.call('ZCARD', expiring)
  if kept_ms == '' then
    redis.call('HDEL', meta_key, 'expires', 'sliding', 'touched')
    redis.call('ZREM', expiring, workflow)
  else
    set_end(meta_key, expiring, workflow, math.max(micros, tonumber(caller_us)), kept_ms, slides)
  end
  return 1
end

local reply = act()
if retry ~= '' then keep_reply(partition, call_id, reply, meta_key, meta[1]) end
return as_reply(reply)
