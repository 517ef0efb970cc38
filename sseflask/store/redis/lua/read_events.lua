-- Reads the first events of some channels after a number.
-- ARGV: the number, how many events are wanted, and bytes; the number up to which the answer is
-- complete as far as is known; how many names follow, the names; where to go on among the channels of
-- patterns, or nothing; the patterns.
-- Replies: the epoch, the newest number, the floor, the holes; how many of the names were looked at;
-- where to go on with the patterns, or nothing if that was all; then for each channel with events
-- after the number: its name, 1 if these are all up to where the answer is complete or else 0, and its
-- entries. Also for each of the names that is not known: 2 more, and what is there nevertheless. Or 0:
-- nothing is known.
-- One call looks at this many channels of patterns, for one pattern; and finds so many.
local CHANNELS, MATCHES = 2000, 200
-- It reads this many entries, beside the first ones of each channel, and goes on so often. Entries
-- that are read at a time, and bytes of them: they may be large.
local ENTRIES, STEPS, FIRST, MOST, MOST_BYTES = 2000, 100, 16, 250, 1048576
-- The largest event, if that is not known.
local LARGE = 1048576
local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'f', 'c', 'h', 'l')
local epoch, generation, newest = known[1], known[2], tonumber(known[3] or 0)
if not epoch or not generation then
  return {0}
end
local after, limit, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local upto, names = tonumber(ARGV[4]), tonumber(ARGV[5])
local last_of = key(generation, 'last')
local floor = true_floor(last_of, tonumber(known[4]), tonumber(known[5]), newest)
local at_once = math.max(1, math.floor(MOST_BYTES / math.max(1, tonumber(known[7] or LARGE))))
local reply = {epoch, newest, floor, known[6], 0, ''}

local channels, seen, total = {}, {}, 0
-- More of each than its share, as some have more to give than others.
local function first_amount(count)
  local each = 2 + math.floor(2 * limit / count)
  return math.min(count > 1 and each or limit, limit, FIRST, at_once)
end

-- Read on in a channel. `upto` is the number up to which all channels are complete.
local function read(channel, amount)
  local rows = redis.call('XRANGE', channel.stream, text(channel.at + 1), '+', 'COUNT', amount)
  for _, row in ipairs(rows) do
    channel.entries[#channel.entries + 1] = row
    channel.bytes = channel.bytes + #row[2][4]
    total = total + #row[2][4]
  end
  if #rows > 0 then
    channel.at = id_number(rows[#rows][1])
  end
  channel.all = #rows < amount
  return #rows
end

local function begin(name, is_unknown, amount)
  seen[name] = true
  local stream = key(generation, 'channel:' .. name)
  local channel = {name = name, unknown = is_unknown, stream = stream, at = after, entries = {}, bytes = 0}
  channels[#channels + 1] = channel
  read(channel, amount)
end

local amount = first_amount(names)
for index = 6, 5 + names do
  local name = ARGV[index]
  local last = redis.call('ZSCORE', last_of, name)
  if not last or tonumber(last) > after then
    begin(name, not last, amount)
  end
  reply[5] = reply[5] + 1
  if total >= 2 * bytes then
    break
  end
end

local patterns = 7 + names
if ARGV[patterns] then
  local from = ARGV[patterns - 1]
  if reply[5] < names then
    reply[6] = from
  else
    if from == '' then
      from = '(' .. text(after)
    end
    local count = math.max(MATCHES, math.floor(CHANNELS / (#ARGV - patterns + 1)))
    local rows = {}
    if total < 2 * bytes then
      rows = redis.call('ZRANGEBYSCORE', last_of, from, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
    else
      reply[6] = from
    end
    local matching = {}
    for index = 1, #rows, 2 do
      for pattern = patterns, #ARGV do
        if string.find(rows[index], ARGV[pattern]) then
          matching[#matching + 1] = index
          break
        end
      end
      -- No two channels have the same last event.
      if #matching == MATCHES then
        if index + 1 < #rows then
          reply[6] = '(' .. rows[index + 1]
        end
        break
      end
    end
    if reply[6] == '' and #rows == 2 * count then
      reply[6] = '(' .. rows[#rows]
    end
    amount = first_amount(names + #matching)
    for place, index in ipairs(matching) do
      if not seen[rows[index]] then
        begin(rows[index], false, amount)
      end
      if total >= 2 * bytes and place < #matching then
        reply[6] = '(' .. rows[index + 1]
        break
      end
    end
  end
end

-- Go on in the channel that has been read least far: the answer can't go further than it.
local read_entries = 0
for _ = 1, STEPS do
  local nearest
  for _, channel in ipairs(channels) do
    if not channel.all and channel.at < upto and (not nearest or channel.at < nearest.at) then
      nearest = channel
    end
  end
  if not nearest or total >= bytes or read_entries >= math.min(ENTRIES, limit) then
    break
  end
  local room = math.floor((bytes - total) / (nearest.bytes / #nearest.entries + 1))
  -- The others need room as well.
  local share = math.floor(math.min(room, 2 * limit) / #channels)
  amount = math.max(1, math.min(room, math.max(share, FIRST), MOST, at_once))
  read_entries = read_entries + read(nearest, amount)
end
for _, channel in ipairs(channels) do
  if not channel.all then
    upto = math.min(upto, channel.at)
  end
end

for _, channel in ipairs(channels) do
  local entries, last = channel.entries, #channel.entries
  -- The first of those that come too late for the answer tells what is missing, and is enough.
  while last > 1 and id_number(entries[last - 1][1]) > upto do
    entries[last] = nil
    last = last - 1
    channel.all = false
  end
  if last > 0 and id_number(entries[last][1]) > upto then
    entries[last][2][4] = ''
  end
  reply[#reply + 1] = channel.name
  reply[#reply + 1] = (channel.all and 1 or 0) + (channel.unknown and 2 or 0)
  reply[#reply + 1] = entries
end
return reply
