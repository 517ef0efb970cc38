-- Finds the first and the last event of each of some names and patterns.
-- ARGV: pairs of n and a name, or p and a pattern of Lua.
-- Replies: for each, the numbers, 0 for none. Or nothing if nothing is known.
local CHANNELS = 2000
local generation = redis.call('HGET', meta, 'g')
if not generation then
  return {}
end

-- The number of a channel's first or last event, or nil if its stream is gone. The index has it, so
-- that no event is read, which may be large; but Redis may have thrown the index away.
local function ends(index, command, from, to, name)
  local stream = key(generation, 'channel:' .. name)
  if redis.call('XLEN', stream) == 0 then
    return nil
  end
  local number = redis.call('ZSCORE', key(generation, index), name)
  if number then
    return tonumber(number)
  end
  return id_number(redis.call(command, stream, from, to, 'COUNT', 1)[1][1])
end

local names_by = {}
local function nearest(index, direction, command, from, to, pattern)
  local names = names_by[index]
  if not names then
    names = redis.call(direction, key(generation, index), 0, CHANNELS - 1)
    names_by[index] = names
  end
  for _, name in ipairs(names) do
    if string.find(name, pattern) then
      local number = ends(index, command, from, to, name)
      if number then
        return number
      end
    end
  end
  return 0
end

local reply = {}
for index = 1, #ARGV, 2 do
  local name = ARGV[index + 1]
  if ARGV[index] == 'n' then
    reply[#reply + 1] = ends('first', 'XRANGE', '-', '+', name) or 0
    reply[#reply + 1] = ends('last', 'XREVRANGE', '+', '-', name) or 0
  else
    reply[#reply + 1] = nearest('first', 'ZRANGE', 'XRANGE', '-', '+', name)
    reply[#reply + 1] = nearest('last', 'ZREVRANGE', 'XREVRANGE', '+', '-', name)
  end
end
return reply
