-- Reads the first events of some channels after a number.
-- ARGV: the number, how many events of each channel at most, and bytes of each; how many names follow,
-- the names; where to go on among the channels of patterns, or nothing; the patterns.
-- Replies: the epoch, the newest number, the floor, the holes; where to go on, or nothing; then for
-- each channel with events after the number: its name, 1 if these are all or else 0, and its entries.
-- Also for each of the names that is not known: 2 more, and what is there nevertheless. Or 0: nothing
-- is known.
local CHANNELS, MATCHES = 2000, 200
local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'f', 'c', 'h')
local epoch, generation, newest = known[1], known[2], tonumber(known[3] or 0)
if not epoch or not generation then
  return {0}
end
local after, each, most, names = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local start = text(after + 1)
local last_of = key(generation, 'last')
local floor = true_floor(last_of, tonumber(known[4]), tonumber(known[5]), newest)
local reply = {epoch, newest, floor, known[6], ''}

local function add(name, entries, state)
  reply[#reply + 1] = name
  reply[#reply + 1] = state
  reply[#reply + 1] = entries
end

local function read(name, unknown)
  local stream = key(generation, 'channel:' .. name)
  local entries, size, from = {}, 0, start
  while true do
    local wanted = math.min(each - #entries, 20)
    local rows = redis.call('XRANGE', stream, from, '+', 'COUNT', wanted)
    for _, row in ipairs(rows) do
      entries[#entries + 1] = row
      size = size + #row[2][4]
    end
    if #rows < wanted then
      return add(name, entries, 1 + unknown)
    end
    if #entries == each or size >= most then
      return add(name, entries, unknown)
    end
    from = text(id_number(rows[#rows][1]) + 1)
  end
end

for index = 5, 4 + names do
  local name = ARGV[index]
  local last = redis.call('ZSCORE', last_of, name)
  if not last then
    read(name, 2)
  elseif tonumber(last) > after then
    read(name, 0)
  end
end

local patterns = 6 + names
if ARGV[patterns] then
  local from = ARGV[patterns - 1]
  if from == '' then
    from = '(' .. text(after)
  end
  local rows = redis.call('ZRANGEBYSCORE', last_of, from, '+inf', 'WITHSCORES', 'LIMIT', 0, CHANNELS)
  local matches = 0
  for index = 1, #rows, 2 do
    for pattern = patterns, #ARGV do
      if string.find(rows[index], ARGV[pattern]) then
        matches = matches + 1
        read(rows[index], 0)
        break
      end
    end
    if index == 2 * CHANNELS - 1 or (matches == MATCHES and index + 1 < #rows) then
      -- No two channels have the same last event.
      reply[5] = '(' .. rows[index + 1]
      break
    end
  end
end
return reply
