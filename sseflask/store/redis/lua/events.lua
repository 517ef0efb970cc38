-- What the scripts of events share. KEYS[1] is the hash of what is known of all events:
--   e the epoch, g the generation (in the names of all other keys), n the newest event's number,
--   j the number after which the next event comes if that is higher,
--   m how many notices there were, s how many of them since the newest event,
--   f the floor: what was forgotten altogether had numbers up to here, c how many channels `last` has,
--   i the identity of the server, h the holes in the numbers (before:behind), a the number up to which
--   events are too old, l the bytes of the largest event so far, t when the time was last noted; z the tail's last entry at a time, which is y.
-- Beside it, with the generation in their names:
--   last and first: sorted sets of channels, by the numbers of their last and first events,
--   times: sorted set of numbers by the time when they were the newest,
--   here: sorted set of processes by the time when they last said that they follow,
--   awaited: sorted set of those that followed another server just now, and have not looked at this one,
--   tail: the stream of all news, channel:<name>: the stream of a channel's events,
--   key:<key>: an append with an idempotency key, batch:<process>: the reply to its last batch.
-- An entry of `tail` begins with p: the newest number and the count of notices before it, and a
-- nonce. An entry of a channel begins with p: the number of the channel's event before.
local meta = KEYS[1]
-- The tail has this many entries before what is older than so many seconds is trimmed.
local TAIL, TAIL_SECONDS = 4000, 10

local function text(number)
  return string.format('%.0f', number)
end

local function id_number(id)
  return tonumber(string.match(id, '^%d+'))
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function key(generation, name)
  return string.sub(meta, 1, -5) .. generation .. ':' .. name
end

-- The newest number at a time, or nil. What it is asked of is older than that time.
local function number_at(times, time)
  return tonumber(redis.call('ZREVRANGEBYSCORE', times, time, '-inf', 'LIMIT', 0, 1)[1])
end

-- Redis may have thrown the index away: then what is not in it may have been forgotten.
local function true_floor(last, floor, count, newest)
  if redis.call('ZCARD', last) ~= count then
    return newest
  end
  return floor
end

-- A process says that it is there.
local function say_here(generation, process)
  -- Not `call`: it is no reason to fail that the memory is full.
  local here, time = key(generation, 'here'), now()
  redis.pcall('ZADD', here, time, process)
  redis.pcall('ZREMRANGEBYSCORE', here, '-inf', time - 60)
end

local function add_notice(generation, before, noticed, id, kind, body)
  redis.call('XADD', key(generation, 'tail'), id,
    'p', text(before) .. ' ' .. text(noticed) .. ' -', 'k', kind, 'b', body)
end
