-- Store a commit: its entry in the feed, its entries, and then the rest. The script's loop includes this part, because
-- a call would cost a plain commit time. `reply` becomes the ID of the last entry, or an error as a table, which
-- `is_stored` tells. The cursor is not saved yet.
      local refused
      if feed_count then
        -- The entry of the feed comes first: if the feed rejects it, nothing is changed.
        position = try('HINCRBY', partition, 'position', feed_count)
        if type(position) == 'table' then
          refused = position
        else
          local payload = ARGV[last]
          local id, commit = string.format('%d-%s', position, now_ms), string.format('%d ', cursor + feed_count)
          local what = feed_count
          if given.n or #payload >= SIZED then
            local size = 0
            for place = first, last, 3 do
              local _, header, rows = unpack(ARGV, place, place + 2)
              size = size + #header + #rows
            end
            what = what .. ' ' .. size
          end
          refused = try('XADD', feed, id, what, commit .. workflow)
          if refused.err then
            rare = rare or make_rare_functions(now_us, now_ms)
            refused.err = rare.take_back(partition, position, feed_count, refused.err)
          end
        end
        if refused.err then reply, last = refused, first - 1 end
      end
      for place = first, last, 3 do
        local count, header, payload = unpack(ARGV, place, place + 2)
        local after = cursor + count
        local text = string.format('%d', after)
        -- The last entry has the fields for its tags; and for its position, if the caller or the index needs it.
        local further = extras and place + 3 > last and extras.fields
        if (given.P or given.W) and place + 3 > last then
          further = further or metadata and {'m', metadata} or {}
          further[#further + 1], further[#further + 2] = 'p', string.format('%d', position)
        end
        local id = text .. '-' .. now_ms
        reply = further and try('XADD', events, id, header, payload, 'i', commit_id, unpack(further))
          or metadata and try('XADD', events, id, header, payload, 'i', commit_id, 'm', metadata)
          or try('XADD', events, id, header, payload, 'i', commit_id)
        if reply.err then
          if position then
            rare = rare or make_rare_functions(now_us, now_ms)
            rare.void_entry(feed, position, feed_count)
          end
          break
        end
        cursor, cursor_text, largest = after, text, math.max(largest, #header + #payload)
      end
      is_stored = type(reply) ~= 'table'
      if is_stored then
        if call_id and first <= last then
          call('HSET', commits, commit_id, cursor_text)
          call('HINCRBY', meta_key, 'ids', 1)
        end
        if extras then
          extras.position = position
          rare.store_extras(w, cursor, extras)
        end
      end
