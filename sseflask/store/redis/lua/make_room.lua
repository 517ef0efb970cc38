-- Delete runs whose time is over, or to make room. Returns how many; then, if what goes on fills
-- the room, the run with the most bytes, to be ended.

local most_bytes = tonumber(ARGV[3])

local count = delete_over()
if count > 0 then
  return {count}
end
local made, _, overfull = make_room(most_bytes)
local largest, largest_size
if overfull then
  for _, member in ipairs(call('ZRANGE', base .. ':running', 0, MANY)) do
    local id = string.sub(member, 18)
    local size = tonumber(call('HGET', run_key(id), 'size') or 0)
    if not largest or size > largest_size then
      largest, largest_size = id, size
    end
  end
end
return {made, largest}
