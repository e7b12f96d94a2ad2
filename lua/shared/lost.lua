-- Whether a workflow that has no meta hash stands in the index: an error, or nothing. The meta hash was lost then, and
-- another one would hide that.
local function lost_meta(index, workflow)
  if redis.call('ZSCORE', index, workflow) then return 'DAMAGED meta hash' end
end
