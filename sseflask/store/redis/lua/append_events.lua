-- Stores some appends of a process, all of them.
-- ARGV: the generation that the process knows, its name, a nonce; seconds for which events stay
-- though a channel has too many, and for which they are kept; then for each append: the channel, the
-- key or nothing, the digest, how many events the channel keeps, how many follow, these.
-- Replies: 1, the epoch, the newest number and the count of notices before; then for each append:
-- first and last number, and 0 if stored now, 1 if stored before, 2 if the key had another digest.
-- Or 0: the process does not know the generation. Or 2: not yet, as other processes have to look at
-- this server first.
local KEY_SECONDS, BATCH_SECONDS = 86400, 120
-- An entry of the tail has this many frames, or bytes, at most; unless one frame alone is larger.
local FRAMES, BYTES = 200, 65536
-- The tail has this many bytes before it is trimmed.
local TAIL_BYTES = 33554432
-- Events, and bytes of them, that a call trims beside twice what it adds; and channels that are
-- forgotten at once.
local TRIM, TRIM_BYTES, FORGET = 500, 262144, 200

local own_generation, process, nonce = ARGV[1], ARGV[2], ARGV[3]
local young, seconds = tonumber(ARGV[4]), tonumber(ARGV[5])

local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'm', 'f', 'c', 'a', 't', 'j', 'l')
local epoch, generation, newest, noticed = known[1], known[2], tonumber(known[3] or 0), known[4]
if not epoch or generation ~= own_generation then
  return {0}
end
local batch = key(generation, 'batch:' .. process)
local before = redis.call('GET', batch)
if before and string.sub(before, 1, #nonce) == nonce then
  return cmsgpack.unpack(string.sub(before, #nonce + 1))
end
if redis.call('EXISTS', key(generation, 'awaited')) == 1 then
  return {2}
end
local floor, count, aged, noted = tonumber(known[5]), tonumber(known[6]), tonumber(known[7]), tonumber(known[8])
local jump, largest = tonumber(known[9] or 0), tonumber(known[10] or nil)
local tail, times = key(generation, 'tail'), key(generation, 'times')
local last_of, first_of = key(generation, 'last'), key(generation, 'first')
local time = now()
-- What need not be done more often than once a second. The server's clock may have been put back.
local is_due = time >= noted + 1 or time < noted
local changed = {}
local function change(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end

-- If something is refused in the middle (a command that the user may not use, a key of another
-- type), what was written stays. So these numbers are taken first: others can't be given them.
local all, append = 0, 6
while ARGV[append] do
  all = all + ARGV[append + 4]
  append = append + 5 + ARGV[append + 4]
end
redis.call('XLEN', tail)
redis.call('HSET', meta, 'n', text(math.max(newest, jump) + all))
local card = redis.call('ZCARD', last_of)
if card ~= count then
  floor, count = newest, card
  change('f', text(floor))
end
if is_due and newest > 0 then
  redis.call('ZADD', times, 'NX', time, text(newest))
  change('t', string.format('%.3f', time))
end

local reply = {1, epoch, newest, tonumber(noticed)}
local touched = {}
local function channel_of(name)
  local channel = touched[name]
  if not channel then
    local stream = key(generation, 'channel:' .. name)
    local score = redis.call('ZSCORE', last_of, name)
    channel = {stream = stream, before = score or text(floor), held = redis.call('XLEN', stream), added = 0, bytes = 0}
    if not score then
      count = count + 1
    end
    if channel.held == 0 then
      redis.call('ZADD', first_of, text(math.max(newest, jump) + 1), name)
    end
    touched[name] = channel
  end
  return channel
end

local place = 6
while ARGV[place] do
  local name, idempotency, digest = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  local keep, amount = tonumber(ARGV[place + 3]), tonumber(ARGV[place + 4])
  place = place + 5
  local start = math.max(newest, jump)
  local first, last, state = start + 1, start + amount, 0
  local stored = false
  if idempotency ~= '' then
    idempotency = key(generation, 'key:' .. idempotency)
    stored = redis.call('GET', idempotency)
  end
  if stored then
    local its_first, its_last, its_digest = string.match(stored, '^(%d+) (%d+) (.*)$')
    first, last, state = tonumber(its_first), tonumber(its_last), 1
    if its_digest ~= digest then
      state = 2
    end
  else
    local channel = channel_of(name)
    channel.keep, channel.added = keep, channel.added + amount
    local entry, frames, size = {'p', text(newest) .. ' ' .. noticed .. ' ' .. nonce, 'c', name}, 0, 0
    newest = start
    for index = place, place + amount - 1 do
      local frame = ARGV[index]
      newest = newest + 1
      local number = text(newest)
      redis.call('XADD', channel.stream, number .. '-0', 'p', channel.before, 'f', frame)
      channel.before, channel.bytes = number, channel.bytes + #frame
      if largest and #frame > largest then
        largest = #frame
      end
      entry[#entry + 1] = 'f'
      entry[#entry + 1] = frame
      frames, size = frames + 1, size + #frame
      if index == place + amount - 1 or frames == FRAMES or size >= BYTES then
        redis.call('XADD', tail, number .. '-0', unpack(entry))
        entry, frames, size = {'p', number .. ' ' .. noticed .. ' ' .. nonce, 'c', name}, 0, 0
      end
    end
    -- Not before they are stored: a repetition would be told that they are.
    if idempotency ~= '' then
      redis.call('SET', idempotency, text(first) .. ' ' .. text(last) .. ' ' .. digest, 'EX', KEY_SECONDS)
    end
  end
  place = place + amount
  reply[#reply + 1] = first
  reply[#reply + 1] = last
  reply[#reply + 1] = state
end

-- Trim so many of a channel's first events, of those that are not young. More than what was added,
-- or it would grow for ever.
local function trim_old(channel, amount)
  local old = number_at(times, time - young) or 0
  local own, own_bytes = 2 * channel.added, 2 * channel.bytes
  local room = TRIM_BYTES + own_bytes
  amount = math.min(amount, TRIM + own)
  local taken, taken_bytes = 0, 0
  -- Only one at first: there may be none, and events are large.
  local upto, count = 0, 1
  while amount > 0 and room > 0 do
    local rows = redis.call('XRANGE', channel.stream, text(upto + 1), '+', 'COUNT', math.min(amount, count))
    for _, row in ipairs(rows) do
      local number = id_number(row[1])
      if number > old then
        amount = 0
        break
      end
      upto, amount, room = number, amount - 1, room - #row[2][4]
      taken, taken_bytes = taken + 1, taken_bytes + #row[2][4]
    end
    if #rows < count then
      break
    end
    count = 8
  end
  if upto == 0 then
    return 0
  end
  -- What is beside twice what was added is for all channels of the call together.
  TRIM = TRIM - math.max(0, taken - own)
  TRIM_BYTES = TRIM_BYTES - math.max(0, taken_bytes - own_bytes)
  return redis.call('XTRIM', channel.stream, 'MINID', '=', text(upto + 1))
end

for name, channel in pairs(touched) do
  local held, keep, stream = channel.held + channel.added, channel.keep, channel.stream
  redis.call('ZADD', last_of, channel.before, name)
  redis.call('EXPIRE', stream, math.ceil(seconds))
  local trimmed = 0
  if aged > 0 and channel.held > 0 then
    trimmed = redis.call('XTRIM', stream, 'MINID', '~', text(aged + 1))
    held = held - trimmed
  end
  if held > keep + math.floor(keep / 10) then
    if young <= 0 then
      trimmed = trimmed + redis.call('XTRIM', stream, 'MAXLEN', '=', keep)
    else
      trimmed = trimmed + trim_old(channel, held - keep)
    end
  end
  if trimmed > 0 then
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if oldest then
      redis.call('ZADD', first_of, text(id_number(oldest[1])), name)
    end
  end
end

if is_due then
  local young_number = number_at(times, time - math.max(TAIL_SECONDS, 2 * young))
  -- An error after the first write would leave half of a batch, and a user may lack this right.
  local bytes = redis.pcall('MEMORY', 'USAGE', tail, 'SAMPLES', 3)
  if young_number and (redis.call('XLEN', tail) > TAIL
    or (type(bytes) == 'number' and bytes > TAIL_BYTES))
  then
    redis.call('XTRIM', tail, 'MINID', '~', text(young_number + 1), 'LIMIT', 10000)
  end
  aged = math.max(aged, number_at(times, time - seconds) or 0)
  change('a', text(aged))
  -- Channels of which all events are too old, so that Redis has deleted their streams.
  local idle = redis.call('ZRANGEBYSCORE', last_of, '-inf', text(aged), 'LIMIT', 0, FORGET)
  if #idle > 0 then
    local upto = aged
    if #idle == FORGET then
      upto = tonumber(redis.call('ZSCORE', last_of, idle[FORGET]))
    end
    redis.call('ZREM', last_of, unpack(idle))
    redis.call('ZREM', first_of, unpack(idle))
    floor, count = math.max(floor, upto), count - #idle
    change('f', text(floor))
  end
  -- A mark for each second is not needed of what is long ago. The first one stays until it is too
  -- old for this; then the next one does.
  redis.call('ZREMRANGEBYSCORE', times, '-inf', time - 2 * seconds - 120)
  local spare = redis.call('ZRANGEBYSCORE', times, time - 120 - seconds / 64, time - 120)
  if #spare > 1 then
    table.remove(spare, 1)
    redis.call('ZREM', times, unpack(spare))
  end
  for _, name in ipairs({tail, times, last_of, first_of}) do
    redis.call('EXPIRE', name, math.ceil(2 * seconds) + 86400)
  end
end
if largest then
  change('l', text(largest))
end
change('n', text(newest))
if newest > reply[3] then
  change('s', 0)
end
change('c', count)
redis.call('HSET', meta, unpack(changed))
redis.call('SET', batch, nonce .. cmsgpack.pack(reply), 'EX', BATCH_SECONDS)
return reply
