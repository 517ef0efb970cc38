-- What the scripts of runs share; it stands before each of them.
--
-- KEYS[1]: a hash of what is known of all runs together. Other keys begin as it does:
-- <>:run:<id>           a hash: what is known of a run, and its frames, whose fields are their
--                       numbers. It is evicted, or expires, as a whole.
-- <>:key:<key>          the id of the run that a repetition of its request finds.
-- <>:account:<account>  the set of the ids of an account's running runs.
-- <>:processes          the sorted set of processes that may write, by their last sign of life.
-- <>:dead               the set of processes whose runs are being ended.
-- <>:running            the sorted set of "<writer>:<id>" of running runs, by name.
-- <>:ended              the sorted set of "<id>:<bytes>" of ended runs, by the times of their ends.
-- <>:kept               the same of those whose claims say for how long, by when they are over.
-- <>:inbox:<process>    the stream of what a process is to know. An entry begins with a letter and
--                       a run: f: frames, whose fields are their numbers; n: there are frames up
--                       to a number, to be read; e: the end; w: a process is attached, or no
--                       longer; o: entries were thrown away; h: nothing.
--
-- ARGV[1]: the calling process's token of 16 hexadecimal digits.
-- ARGV[2]: the milliseconds for which an ended run is kept, unless its claim says otherwise.
--
-- Times are the server's, in microseconds.

local call = redis.call
local base = KEYS[1]
local token, keep = ARGV[1], tonumber(ARGV[2])

-- What a run, and a frame, take beside the frame's own bytes, about.
local RUN_BYTES, FRAME_BYTES = 1024, 48
-- An inbox with more entries is emptied: its process reads from the runs what it missed.
local INBOX_ENTRIES = 4000
-- In place of the writer of a run that waits for another one.
local NOBODY = '0000000000000000'
-- Microseconds for which a run is kept after its end in any case, as its viewers read its last frames.
local READ_TIME = 10000000
-- How many runs one call ends or deletes at most: the server does nothing else meanwhile.
local SOME = 50
-- How many runs are looked at, at most, to find out what they take.
local MANY = 2000
-- Milliseconds after which a run that goes on is gone, beside those for which it is kept, unless its
-- writer says that it goes on. So nothing stays if all processes go for good.
local LONGEST = 8 * 86400000

local function now()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function text(number)
  return string.format('%.0f', number)
end

local function run_key(id)
  return base .. ':run:' .. id
end

-- Add an entry to a process's inbox; give its id, or false if there is no inbox.
local function send(process, ...)
  local inbox = base .. ':inbox:' .. process
  if call('XLEN', inbox) >= INBOX_ENTRIES then
    call('XTRIM', inbox, 'MAXLEN', 0)
    call('XADD', inbox, '*', 'o', '')
  end
  -- Only its process makes an inbox: what is sent to a dead one would stay for ever.
  return call('XADD', inbox, 'NOMKSTREAM', '*', ...)
end

-- What callers are given of a run, and who writes it; nothing if there is none, or, where that
-- counts, if its time is over.
local function find(id, is_kept)
  local run = call('HMGET', run_key(id), 'writer', 'label', 'last', 'ended', 'outcome', 'notes', 'by', 'at', 'keep')
  if not run[1] or is_kept and run[4] and now() - run[8] >= (run[9] or keep) * 1000 then
    return nil
  end
  local ended = run[4]
  local found = {id, run[2], tonumber(run[3]), tonumber(ended or 0), '', '', run[1]}
  if ended then
    found[5], found[6], found[7] = run[5], run[6], run[7]
  end
  return found, run[1]
end

-- End a run that goes on. Give what callers are given of it then.
-- `shown` is the number of the last frame that somebody has been shown, if the server lost it: the
-- end has none of the numbers that clients may present.
local function end_run(id, outcome, frees_key, by, shown)
  local key = run_key(id)
  local run = call('HMGET', key, 'last', 'writer', 'account', 'key', 'size', 'watchers', 'label', 'notes', 'keep')
  local last, writer, at = tonumber(run[1]), run[2], text(now())
  local number = math.max(last, shown or 0) + 1
  -- First something that needs no memory. If there is none, Redis refuses a script's first write
  -- only, and a run has to end all the same.
  call('ZREM', base .. ':running', writer .. ':' .. id)
  call('SREM', base .. ':account:' .. run[3], id)
  call('HSET', key, 'ended', number, 'outcome', outcome, 'by', by, 'at', at, 'watchers', '')
  local kept, member = tonumber(run[9] or keep), id .. ':' .. text(run[5] + RUN_BYTES)
  local ended, over = base .. ':ended', at
  if run[9] then
    ended, over = base .. ':kept', text(at + math.max(kept * 1000, READ_TIME))
  end
  call('ZADD', ended, over, member)
  -- Usually it is deleted before. If no process is left that could, this is what does.
  local expiry = text(kept + 60000)
  call('PEXPIRE', key, expiry)
  if call('PTTL', ended) < kept + 3660000 then
    call('PEXPIRE', ended, text(kept + 3660000)) -- all that is in it has expired by then
  end
  local named = base .. ':key:' .. run[4]
  if run[4] ~= '' and call('GET', named) == id then
    if frees_key == '1' and last == 0 then
      call('DEL', named)
    else
      call('PEXPIRE', named, expiry)
    end
  end
  local sent = {}
  -- A writer that ends its run tries until it gets the answer. Others may lose it.
  if by == writer .. 'a' then
    sent[writer] = true
  end
  for process in string.gmatch(writer .. ' ' .. string.sub(by, 1, 16) .. ' ' .. run[6], '%x+') do
    if not sent[process] then
      sent[process] = true
      send(process, 'e', id, 'label', run[7], 'last', last, 'ended', number, 'outcome', outcome, 'notes', run[8], 'by', by)
    end
  end
  return {id, run[7], last, number, outcome, run[8], by}
end

-- Let a run wait for another writer, for some milliseconds.
local function wait_for_writer(id, milliseconds)
  local key = run_key(id)
  local run = call('HMGET', key, 'writer', 'key')
  call('ZREM', base .. ':running', run[1] .. ':' .. id)
  call('ZADD', base .. ':running', 0, NOBODY .. ':' .. id)
  call('HSET', key, 'writer', NOBODY, 'waits_since', text(now()))
  -- If no process is left that could end it, this is what does.
  local named, expiry = base .. ':key:' .. run[2], text(milliseconds + 60000)
  call('PEXPIRE', key, expiry)
  if run[2] ~= '' and call('GET', named) == id then
    call('PEXPIRE', named, expiry)
  end
end

-- What becomes of a run whose writer has died: it waits for another one, or if that can't be, or
-- has been before, it ends. Returns it if it has ended.
local function bereave(id, milliseconds, outcome, frees_key)
  local key = run_key(id)
  local run = call('HMGET', key, 'successor', 'deaths')
  if run[1] and not run[2] then
    call('HSET', key, 'deaths', 1)
    wait_for_writer(id, milliseconds)
    return nil
  end
  return end_run(id, outcome, frees_key, token .. 'x')
end

-- A run goes on: have it stay, and what belongs to it.
local function keep_on(id)
  local run, time = call('HMGET', run_key(id), 'key', 'account'), text(keep + LONGEST)
  if not run[1] then
    return
  end
  call('PEXPIRE', run_key(id), time)
  call('PEXPIRE', base .. ':account:' .. run[2], time)
  call('PEXPIRE', base .. ':running', time)
  local named = base .. ':key:' .. run[1]
  if run[1] ~= '' and call('GET', named) == id then
    call('PEXPIRE', named, time)
  end
end

-- Whether the writer of a run is known to be gone for good.
local function abandoned(writer)
  if writer == NOBODY or call('ZSCORE', base .. ':processes', writer) then
    return false
  end
  local since = call('HGET', base, 'grace')
  return since and now() >= tonumber(since)
end

-- Delete some of the runs of a sorted set up to a score, until some bytes are free; of these only
-- those that ended before a time. Returns how many.
local function delete_some(ended, upto, enough, before)
  local members = call('ZRANGEBYSCORE', ended, '-inf', upto, 'LIMIT', 0, SOME)
  local count, freed = 0, 0
  for _, member in ipairs(members) do
    if freed >= enough then
      break
    end
    local id, bytes = string.match(member, '^(.*):(%d+)$')
    local run = call('HMGET', run_key(id), 'key', 'at')
    if tonumber(run[2] or 0) <= before then
      local key = run[1]
      call('UNLINK', run_key(id))
      if key and key ~= '' and call('GET', base .. ':key:' .. key) == id then
        call('DEL', base .. ':key:' .. key)
      end
      call('ZREM', ended, member)
      call('HINCRBY', base, 'bytes', '-' .. bytes)
      count, freed = count + 1, freed + bytes
    end
  end
  return count
end

-- Delete some of the runs that ended before a time, until some bytes are free: those whose claims
-- say for how long they are kept only if there are no others. Returns how many.
local function delete_ended(before, enough)
  local count = delete_some(base .. ':ended', text(before), enough, math.huge)
  if count == 0 then
    count = delete_some(base .. ':kept', '+inf', enough, before)
  end
  return count
end

-- Delete some of the runs whose time is over. Returns how many.
local function delete_over()
  local at = now()
  return delete_some(base .. ':ended', text(at - keep * 1000), math.huge, math.huge)
    + delete_some(base .. ':kept', text(at), math.huge, math.huge)
end

-- Count anew what runs take if none has ended: of those that Redis evicted nothing is subtracted.
local function count_anew(used)
  local members, bytes = call('ZRANGE', base .. ':running', 0, MANY), 0
  if #members > MANY then
    return used
  end
  for _, member in ipairs(members) do
    local size = call('HGET', run_key(string.sub(member, 18)), 'size')
    bytes = bytes + (size and size + RUN_BYTES or 0)
  end
  call('HSET', base, 'bytes', text(bytes))
  return bytes
end

-- Delete runs if what runs take is near a limit. Returns how many; whether running runs alone are
-- near it; and whether they are above it.
local function make_room(most)
  if most == 0 then
    return 0, false, false
  end
  local used = tonumber(call('HGET', base, 'bytes') or 0)
  local step = math.min(1048576, most / 64)
  local nearly, over = used - most * 7 / 8, used - most + step
  if nearly <= 0 then
    return 0, false, false
  end
  local count
  if over > 0 then
    count = delete_ended(math.huge, over + step)
  else
    -- Clients read what has just ended.
    count = delete_ended(now() - READ_TIME, nearly)
  end
  if count > 0 or call('ZCARD', base .. ':ended') + call('ZCARD', base .. ':kept') > 0 then
    return count, false, false
  end
  used = count_anew(used)
  return 0, used > most * 7 / 8, used > most - step
end
