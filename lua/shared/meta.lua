-- Return an error if a workflow without a meta hash stands in the index, or nothing. Its meta hash was lost, and a
-- new one would hide that.
local function meta_error(index, workflow)
  if redis.call('ZSCORE', index, workflow) then return 'DAMAGED meta hash' end
end
