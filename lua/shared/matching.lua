-- Queries on the tags of a namespace, in its index, the sorted set `tagged`. A member is a tag, NUL, the position
-- after a commit (16 digits), NUL, the cursor after it, NUL, which of its events have the tag, NUL, the workflow id.
-- Events are counted back from the commit's last one: '0,2', or '' for all.
--
-- A query is some items, an item is some tags. An event matches an item that has only tags of the event. An item is
-- evaluated by walks, one for each of its tags: they go to the next commit that all of the tags have.

-- How many steps the walks of a query make in one call, and how many members a walk reads at once. The bounds limit
-- the script's time.
local MOST_STEPS, MOST_MEMBERS = 8192, 64

-- Return the items of a query, and the place after it. `at` is the place of the number of its items. For each item
-- follow the number of its tags, and the tags.
local function items_of(at)
  local count = ARGV[at]
  local items = {}
  at = at + 1
  for number = 1, count do
    local size = ARGV[at]
    local walks = {}
    for place = at + 1, at + size do
      local tag = ARGV[place]
      walks[#walks + 1] = {tag = tag, members = {}, at = 1, size = 1}
    end
    -- An item has more steps than walks. So each call makes progress with each item.
    items[number] = {walks = walks, steps = math.ceil(MOST_STEPS / count) + 2 * #walks}
    at = at + 1 + size
  end
  return items, at
end

-- Return the position that a member of the index has; nil if it is no such member.
local function position_in(member, tag)
  return tonumber(string.sub(member, #tag + 2, #tag + 17))
end

-- Move a walk to the first commit from a position on that has its tag. Return that commit's position, or nothing.
local function seek(tagged, item, walk, position)
  local tag = walk.tag
  while true do
    item.steps = item.steps - 1
    local member = walk.members[walk.at]
    if member then
      local found = position_in(member, tag)
      if not found or found >= position then return found end
      walk.at = walk.at + 1
      -- A walk that jumps past unread members reads one at the new place: it may jump again.
      local last = walk.members[walk.at] and position_in(walk.members[#walk.members], tag)
      if last and last < position then walk.at, walk.size = #walk.members + 1, 1 end
    elseif walk.is_done then
      return nil
    else
      local first = '[' .. tag .. '\0' .. string.format('%016.0f', position)
      walk.members = redis.call('ZRANGEBYLEX', tagged, first, '(' .. tag .. '\1', 'LIMIT', 0, walk.size)
      walk.at, walk.is_done = 1, #walk.members < walk.size
      walk.size = math.min(MOST_MEMBERS, 4 * walk.size)
    end
  end
end

-- Return which events after the position `after` have all tags of an item whose walks are at the commit with this
-- position; or nothing.
local function common_events(item, position, after)
  local kept
  for _, walk in ipairs(item.walks) do
    local backs = string.match(walk.members[walk.at], '^%d+%z([%d,]*)%z', #walk.tag + 19)
    if backs ~= '' then
      local those = {}
      for back in string.gmatch(backs or '', '%d+') do
        if not kept or kept[back] then those[back] = true end
      end
      kept = those
    end
  end
  if not kept then return '' end
  local backs = {}
  for back in pairs(kept) do
    if position - tonumber(back) > after then backs[#backs + 1] = back end
  end
  return backs[1] and table.concat(backs, ',')
end

-- Find the first commit, from a position on, with events after `after` that match an item. Note its position and its
-- events in the item. If the steps are used up, note in `searched` up to where there is none.
local function find_next(tagged, item, position, after)
  local walks, agreed, place = item.walks, 0, 1
  item.found, item.backs, item.searched = nil, nil, nil
  while true do
    local found = seek(tagged, item, walks[place], position)
    if not found then return end
    if found > position then position, agreed = found, 0 end
    agreed = agreed + 1
    if agreed == #walks then
      local backs = common_events(item, position, after)
      if backs then
        item.found, item.backs = position, backs
        return
      end
      position, agreed = position + 1, 0
    end
    if item.steps <= 0 then
      item.searched = position - 1
      return
    end
    place = place % #walks + 1
  end
end
