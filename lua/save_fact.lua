-- Keeps a fact once: what is there under its hash already stays.
--
-- KEYS[1]  bucket  hash of fact hashes to facts
-- ARGV[1]  fact hash
-- ARGV[2]  fact: a digest of so many bytes, then the rest
-- ARGV[3]  length of the digest in bytes
-- Reply    integer: 1 if it was stored, 0 if it was there
-- Errors   FACT_DIFFERS, when another value is kept under the hash

if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then return 1 end
local digest = tonumber(ARGV[3])
local present = redis.call('HGET', KEYS[1], ARGV[1])
if string.sub(present, 1, digest) == string.sub(ARGV[2], 1, digest) then return 0 end
return redis.error_reply('FACT_DIFFERS')
