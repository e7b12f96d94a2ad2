-- The base of the scripts that append: the functions for rare commits, and the time.

-- From how many bytes on an entry counts as large. The size of the largest one bounds the pages of readers.
local LARGE = 8192
-- From how many bytes on a commit has its size in the feed. The sizes bound the pages of its readers.
local SIZED = 1024

--@include index

-- Return the functions that a plain commit does not need. They are made when a commit needs one, because making them
-- takes about as long as a plain commit. For the same reason they use no local variable of the script. `w` is the
-- workflow: its `id`; its keys `events`, `meta`, `index` and `partition`; the size of its `largest` entry.
local function make_rare_functions(now_us, now_ms)
--@include numbers
--@include clock
--@include meta
--@include sliding
--@include partition
--@include calls
--@include owner
--@include lease_time
--@include queue
--@include other_key
--@include lease
--@include facts
--@include snapshot_refs
--@include snapshot_facts
  local call, try = redis.call, redis.pcall
  local micros, ms = tonumber(now_us), tonumber(now_ms)
--@include append_workflow
--@include append_retries
--@include labels
--@include append_labels
--@include tags
--@include append_index
--@include append_extras

  return {
    workflow_of = workflow_of, read_workflow = read_workflow, is_from_replica = is_from_replica,
    earlier_reply = earlier_reply, extras_of = extras_of, lease_error = lease_error, extras_error = extras_error,
    store_extras = store_extras, keep_reply = keep_reply, take_back = take_back, void_entry = void_entry,
    with_position = with_position,
    tags_error = tags_error, add_to_index = add_to_index,
    int = int, percent_encoded = percent_encoded,
  }
end

local call, try, KEYS, ARGV = redis.call, redis.pcall, KEYS, ARGV
-- The server's time, put together from its digits: Lua would take longer to write the numbers.
local time = call('TIME')
local fraction = string.sub('00000' .. time[2], -6)
local now_us, now_ms = time[1] .. fraction, time[1] .. string.sub(fraction, 1, 3)
