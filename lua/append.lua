-- Append commits to the streams of workflows. Each commit is stored whole or not at all, and by itself.
--
-- KEYS[1…]  for each commit, of its workflow:
--           events    stream
--           meta      hash: cursor, created, largest, retried, snapshot, ids, refs, trimmed, trimmed_ms, fence,
--                     lease_until, expires, sliding, touched, tags
--           index     sorted set of the partition's workflows by the time of their last write
--           partition hash of the partition: made, counts, position, and the replies to retries
--           and if the namespace has a feed
--           feed      stream of the partition's commits
--           and if the caller gave the commit an id
--           commits   hash of the commit ids that callers gave, to their cursors
--           and if the commit has a lease, a queue, a snapshot, facts, or one of the letters x, r, t, u, A
--           leases    sorted set of the partition's leased workflows by the end of their leases
--           queues    hash of how many workflows each queue of the partition has
--           queue     sorted set of the workflows of a queue by when they are due: of the workflow's queue
--           queue     (with a queue) the same of the queue that it is put in
--           snapshot  (with a snapshot) hash: cursor, time, data, refs
--           refs      (with facts, or with k) sorted set of the hashes of the facts that the workflow refers to, by
--                     the last cursor that does; and for each fact that is not stored already, its bucket, hash, and
--                     the bucket's times, sorted set of its facts by the time when they were last written
--           inbox     (with messages) stream of the messages that no commit has consumed
--           expiring  (with a lifetime) sorted set of the partition's workflows that expire, by when
--           labels    (with attributes) for each of them, two sorted sets of workflows by when they were created:
--                     those with its new value, and those with the value before
--           tags      (with tags) sorted set of the workflow's tags, see lua/find.lua
--           tagged    (with W) index of all tags, see lua/find_where.lua
-- ARGV[1…]  for each commit:
--           workflow_id
--           commit_id
--           tried      '' on a first try; on a retry the ID of an entry that the workflow had before the first try,
--                      or '1'
--           time_us    the caller's time (Unix microseconds)
--           options    letters; for each of them an argument follows, in the same order:
--                      p  how many events it has, if the namespace has a feed and the commit takes a position
--                      c  id of the call, if the caller gave the commit's id
--                      e  expected cursor
--                      m  metadata
--                      l  lease: '<fencing token> <milliseconds>'
--                      q  when it is due in its queue: '' now, '+<milliseconds>' from now on, a time (Unix
--                         milliseconds), or 'inf'
--                      s  snapshot's data
--                      k  (with s) the hashes of the facts that the snapshot refers to, see snapshot_refs
--                      f  how many facts it has
--                      a  (instead of f) how many facts it has, if all are stored already
--                      x  for how many milliseconds the workflow is kept from now on
--                      r  how many messages it consumes
--                      t  '1': it ends the workflow's timer
--                      u  '1': reject it if the workflow's inbox has a request to cancel
--                      A  how many attributes it sets or removes, the parent among them
--                      T  how many tags it has
--                      W  which events have each of them, if the namespace has an index of all tags: for each tag
--                         ',' between the events, counted back from the last one; '' for all; a byte 255 between tags
--                      P  '': its position in the feed belongs to the reply, and is stored with it
--                      n  how many entries it has, if not one
--           and for each entry, how many events it holds, its header, its payload; and for each fact, its hash, and
--           its value, or '' for a fact that must be stored already; and for each message, its ID in the inbox; and
--           for each attribute, its field in the meta hash, 'a:<name>' or 'parent', and '=<value>', or '' to remove
--           it; and the tags
-- Reply     array, for each commit: the ID of its last entry, a string; or the workflow's cursor after it, an
--           integer, if it was stored before or has no events; or an error, as a string. With P, a space and the
--           position follow the ID or the cursor, in a string, if the position is known
-- Errors    READONLY, of all;
--           of a commit: CURSOR_CONFLICT <actual cursor>; LEASE_LOST <owner, percent-encoded>; FACT_MISSING <hash>;
--           REFS_UNKNOWN, if the snapshot refers to facts that neither the workflow nor the commit refers to;
--           MESSAGE_GONE <id>; CANCEL_REQUESTED; ALREADY_STARTED, if the parent comes late; TOO_MANY_ATTRIBUTES;
--           WORKFLOW_COMPLETED; OTHER_KEY <place> <key>, if the workflow is in another queue, or its attribute had
--           another value;
--           DAMAGED <what>; COMMIT_UNSURE, on a retry, if it cannot be known whether the earlier try was stored;
--           LOOK_AGAIN, on a retry, if the scans for other commits of this call have used up their bound;
--           NEW_PARTITION; END_REACHED; and WRONGTYPE, in the words of Redis
--
-- Every key of a commit is read before it is written, by `try`. So a foreign value at one of them changes nothing,
-- and only its own commit fails.

--@include append_common

-- The workflow to which commits are appended now: its keys; its cursor, as a number and as text; the score of this
-- write; whether it is new; whether replies to retries are kept for it; the size of its largest entry, as stored and
-- in this call; an error; the function that notes the time of this write, if there is one.
local workflow, events, meta_key, index, partition
local cursor, cursor_text, score, is_new, retried, known_largest, largest, problem, note

local replies, at, key = {}, 1, 1
local NONE = {}
-- Workflows with a commit that is to be sent again: no later commit may overtake it.
local waiting = {}
-- The functions for what is rare, and the workflow as they take it.
local rare, w
while true do
  local stream, its_meta, its_index, its_partition, feed, after_feed = unpack(KEYS, key, key + 5)
  local workflow_id, commit_id, tried, time_us, options = unpack(ARGV, at, at + 4)
  if stream ~= events then
    -- Save the cursor of the workflow before, and the time of this write.
    if cursor_text then
--@include append_cursor
    end
    if not stream then break end
    -- Read the next workflow, and every key that all commits to it write.
    workflow, events, meta_key, index, partition = workflow_id, stream, its_meta, its_index, its_partition
    local meta = try('HMGET', meta_key, 'cursor', 'created', 'retried', 'largest', 'expires')
    local text, size, newer = meta[1], meta[4] or '0', nil
    cursor_text, score, is_new, retried, known_largest, largest, problem = nil, now_us, false, nil, size, 0, nil
    w, note = nil, nil
    if
      text and #text <= 16 and string.find(text, '^[1-9]%d*$') and #size <= 16 and string.find(size, '^%d+$')
      and meta[2] and not meta[3] and not meta[5]
    then
      -- The score is the time, unless other writes have a later one.
      newer = try('ZCOUNT', index, now_us, '+inf')
      cursor = tonumber(text)
    end
    if newer ~= 0 then
      rare = rare or make_rare_functions(now_us, now_ms)
      w = rare.workflow_of(workflow, events, meta_key, index, partition, size)
      problem, cursor, score, is_new, retried, note =
        rare.read_workflow(w, meta, type(newer) == 'table' and newer.err, time_us)
      if rare.is_from_replica(problem) then return redis.error_reply(problem) end
    end
  end
--@include append_arguments
  local is_plain = tried == '' and not (extras or problem or retried or call_id)
  if not is_plain then
    rare = rare or make_rare_functions(now_us, now_ms)
    w = w or rare.workflow_of(workflow, events, meta_key, index, partition, known_largest)
  end
  if extras then
    extras = rare.extras_of(w, next_at, next_key, key, given, time_us)
    next_at, next_key = extras.next_at, extras.next_key
  end
--@include append_tags
  -- A commit without events creates nothing.
  local reply = not (first > last and problem == 'NEW_PARTITION ') and problem or waiting[events]
  local was_answered = reply and true
  if not (reply or is_plain) then
    reply, was_answered = rare.earlier_reply(w, retried, commit_id, call_id, tried, expected, commits, first, last)
    if reply == 'LOOK_AGAIN ' then waiting[events] = reply end
  end
  local is_stored, position = type(reply) == 'number', nil
  if not reply then
    if extras then reply = rare.lease_error(extras.lease) end
    if not reply and expected and cursor ~= tonumber(expected) then
      reply = 'CURSOR_CONFLICT ' .. string.format('%.0f', cursor)
    end
    if not reply and extras then reply = rare.extras_error(w, extras, cursor) end
    if not reply and tags_key then
      local size = try('ZCARD', tags_key)
      if type(size) == 'number' and tagged then size = try('ZCARD', tagged) end
      if type(size) == 'table' then reply = size.err end
    end
    if not reply then
      reply = cursor
--@include append_entries
      if not is_stored then
        reply = reply.err
        rare = rare or make_rare_functions(now_us, now_ms)
        if rare.is_from_replica(reply) then return redis.error_reply(reply) end
      end
    end
  end
  -- A commit that was found is kept, too: another retry may arrive when it can no longer be found.
  if tried ~= '' and first <= last and not was_answered and reply ~= 'LOOK_AGAIN ' then
    local kept = type(reply) == 'string' and is_stored and cursor or reply
    rare.keep_reply(partition, call_id or commit_id, kept, meta_key, not is_new or is_stored)
    retried = '1'
  end
  if has_fields and given.P then
    if type(reply) == 'number' then
      reply = rare.with_position(w, reply)
    elseif is_stored then
      reply = reply .. ' ' .. string.format('%d', position)
    end
  end
  replies[#replies + 1] = reply
  at, key = next_at, next_key
end
return replies
