-- Save the workflow's cursor, and the time of this write. The script's loop includes this part.
      if is_new then
        call('HSET', meta_key, 'cursor', cursor_text, 'created', now_us)
        if retried then call('HSET', meta_key, 'retried', '1') end
      else
        call('HSET', meta_key, 'cursor', cursor_text)
      end
      if largest >= LARGE and largest > tonumber(known_largest) then call('HSET', meta_key, 'largest', largest) end
      touch_index(index, partition, score, workflow)
      if note then note() end
