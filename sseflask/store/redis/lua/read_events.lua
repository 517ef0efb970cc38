-- Reads the first events of some channels after a number.
-- ARGV: the number, how many events are wanted, and bytes; how many names follow, the names; where to
-- go on among the channels of patterns, or nothing; the patterns.
-- Replies: the epoch, the newest number, the floor, the holes; where to go on, or nothing; then for
-- each channel with events after the number: its name, 1 if these are all or else 0, and its entries.
-- Also for each of the names that is not known: 2 more, and what is there nevertheless. Or 0: nothing
-- is known.
local CHANNELS, MATCHES = 2000, 200
-- Entries that are read from a stream at first, and at most, at a time: they may be large.
local FIRST, MOST = 16, 250
local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'f', 'c', 'h')
local epoch, generation, newest = known[1], known[2], tonumber(known[3] or 0)
if not epoch or not generation then
  return {0}
end
local after, limit, bytes, names = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last_of = key(generation, 'last')
local floor = true_floor(last_of, tonumber(known[4]), tonumber(known[5]), newest)
local reply = {epoch, newest, floor, known[6], ''}

local wanted, unknown = {}, {}
for index = 5, 4 + names do
  local name = ARGV[index]
  local last = redis.call('ZSCORE', last_of, name)
  if not last or tonumber(last) > after then
    wanted[#wanted + 1] = name
    unknown[name] = not last
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
        if unknown[rows[index]] == nil then
          wanted[#wanted + 1] = rows[index]
        end
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

-- More of each than its share, as some have more to give than others.
local each = limit
if #wanted > 1 then
  each = math.min(limit, 2 + math.floor(2 * limit / #wanted))
end
-- The answer ends with this number, or before.
local upto = math.huge
local total = 0
for _, name in ipairs(wanted) do
  local stream, from = key(generation, 'channel:' .. name), text(after + 1)
  local entries, size, state = {}, 0, 0
  local amount = math.min(each, FIRST)
  if total >= 2 * bytes then
    amount = 1
  end
  while true do
    local rows = redis.call('XRANGE', stream, from, '+', 'COUNT', amount)
    for _, row in ipairs(rows) do
      if id_number(row[1]) > upto then
        row[2][4] = '' -- too late for the answer
      end
      entries[#entries + 1] = row
      size = size + #row[2][4]
    end
    if #rows < amount then
      state = 1
      break
    end
    if #entries >= each or size >= bytes or total + size >= 2 * bytes then
      break
    end
    local room = math.floor((bytes - size) / (size / #entries + 1))
    amount = math.max(1, math.min(each - #entries, room, MOST))
    from = text(id_number(rows[#rows][1]) + 1)
  end
  total = total + size
  if state == 0 then
    upto = math.min(upto, id_number(entries[#entries][1]))
  end
  if unknown[name] then
    state = state + 2
  end
  reply[#reply + 1] = name
  reply[#reply + 1] = state
  reply[#reply + 1] = entries
end
return reply
