-- Store what a process appends to its runs.
--
-- For each run: its id, the number of the first frame, how many frames there are, the run's size up
-- to the last one, the last one's notes, the outcome of its end, whether the end frees the key (0
-- or 1; empty if it does not end), and the frames.
--
-- Returns the bytes that all runs take, or 0; then, for some of the appends, its place followed by
-- the run that it has ended, or by 0 if it is refused.

-- An entry of an inbox has frames of at most so many bytes; larger ones are read from their run.
local ENTRY_BYTES, ENTRY_FRAMES = 4096, 100

local answer, added = {0}, 0

-- Store frames from one number up to another. Returns their bytes.
local function store(key, from, upto, place, size, notes)
  local fields, bytes = {key, 'last', upto, 'size', size, 'notes', notes}, 0
  for number = from, upto do
    local frame = ARGV[place + number - from]
    fields[#fields + 1] = number
    fields[#fields + 1] = frame
    bytes = bytes + #frame
    if #fields > 4000 then
      call('HSET', unpack(fields))
      fields = {key}
    end
  end
  if #fields > 1 then
    call('HSET', unpack(fields))
  end
  added = added + bytes + FRAME_BYTES * (upto - from + 1)
  return bytes
end

-- Put frames into the inboxes of watching processes.
local function send_frames(key, watchers, id, from, upto, place, bytes)
  local entry
  if bytes <= ENTRY_BYTES and upto - from < ENTRY_FRAMES then
    entry = {'f', id}
    for number = from, upto do
      entry[#entry + 1] = number
      entry[#entry + 1] = ARGV[place + number - from]
    end
  else
    entry = {'n', id, 'last', upto}
  end
  for watcher in string.gmatch(watchers, '%x+') do
    if not send(watcher, unpack(entry)) then
      -- Dead, or it attaches again when it finds out.
      watchers = string.gsub(watchers, watcher .. ' ', '')
      call('HSET', key, 'watchers', watchers)
    end
  end
end

local at, index = 3, 0
while ARGV[at] do
  index = index + 1
  local id, first, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local size, notes, outcome, frees_key = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local place, upto, ends = at + 7, first + count - 1, frees_key ~= ''
  at = place + count

  local key = run_key(id)
  local run = call('HMGET', key, 'writer', 'last', 'ended', 'watchers', 'by')
  local last, ended = tonumber(run[2] or -1), tonumber(run[3] or 0)
  local refused = false
  if run[1] ~= token then
    refused = true
  elseif ended > 0 then
    -- The end of this very append, whose answer was lost? Or frames that were stored before it?
    if ends then
      refused = run[5] ~= token .. 'a' or ended ~= upto + 1
    else
      refused = count == 0 or last < upto
    end
    if ends and not refused then
      answer[#answer + 1] = index
      answer[#answer + 1] = find(id) or 0
    end
  elseif first > last + 1 then
    refused = true -- the server has lost the frames before
  else
    if upto > last then
      -- Some may be there: the answer was lost.
      local from = last + 1
      place = place + from - first
      local bytes = store(key, from, upto, place, size, notes)
      if run[4] ~= '' then
        send_frames(key, run[4], id, from, upto, place, bytes)
      end
    end
    if ends then
      answer[#answer + 1] = index
      answer[#answer + 1] = end_run(id, outcome, frees_key, token .. 'a')
    end
  end
  if refused then
    answer[#answer + 1] = index
    answer[#answer + 1] = 0
  end
end
if added > 0 then
  answer[1] = call('HINCRBY', base, 'bytes', text(added))
end
return answer
