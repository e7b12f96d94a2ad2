-- Renew the lease of a projection's runner: it lasts for its full time from now on.
--
-- KEYS[1]  projection  hash of the projection: version, fence, owner, until, lease_ms
-- KEYS[2]  projection  hash of a version that is built beside it, with the same fields
-- ARGV[1]  fencing token
-- ARGV[2]  version
-- Reply    integer: 1
-- Errors   LEASE_LOST <owner, percent-encoded>

--@include numbers
--@include clock
--@include owner
--@include projection

local main, beside = KEYS[1], KEYS[2]
local token, version = ARGV[1], ARGV[2]

local key, problem = find_projection(main, beside, token, version)
if problem then return redis.error_reply(problem) end
local _, ms = now()
extend_projection(key, ms)
return 1
