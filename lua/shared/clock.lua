-- The server's time: Unix microseconds, and milliseconds.
local function now()
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  return micros, math.floor(micros / 1000)
end
