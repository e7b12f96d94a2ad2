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
        -- The last entry has fields for the tags: the tags themselves, with a byte between them that no text has; how
        -- many entries the commit has, if not one; and which events have each tag, if not all do. And it has one for
        -- the position, if the caller or the index needs it.
        local further = has_fields and place + 3 > last and (metadata and {'m', metadata} or {})
        if further then
          if tags_key then
            further[#further + 1] = 't'
            further[#further + 1] = table.concat(ARGV, '\255', first_tag, first_tag + given.T - 1)
            if given.n then further[#further + 1], further[#further + 2] = 'n', given.n end
            if (given.W or '') ~= '' then further[#further + 1], further[#further + 2] = 'e', given.W end
          end
          if given.P or given.W then
            further[#further + 1], further[#further + 2] = 'p', string.format('%d', position)
          end
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
        if extras then rare.store_extras(w, cursor, extras) end
        if tags_key then
          local members, digits = {}, string.rep('0', 16 - #cursor_text) .. cursor_text
          for place = first_tag, first_tag + given.T - 1 do
            local tag = unpack(ARGV, place, place)
            members[#members + 1], members[#members + 2] = 0, tag .. '\0' .. digits
          end
          call('ZADD', tags_key, unpack(members))
          call('HINCRBY', meta_key, 'tags', given.T)
          if tagged then
            rare = rare or make_rare_functions(now_us, now_ms)
            rare.add_to_index(tagged, first_tag, given, position, cursor, workflow)
          end
        end
      end
