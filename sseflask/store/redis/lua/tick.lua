-- Say that a process is alive, end or inherit some runs of dead ones, and look at some runs.
--
-- Returns whether the process was unknown; whether there is more to do; the runs that were ended; how
-- many runs it writes; for each run that it has inherited, the run, its notes, its size, and how to
-- go on; and, for each run that was to be looked at, the run or 0.

local in_use, dead_after, seen = ARGV[3] == '1', tonumber(ARGV[4]), ARGV[5]
local outcome, frees_key, inherits, wait = ARGV[6], ARGV[7], ARGV[8] == '1', tonumber(ARGV[9])
local processes, dead, running = base .. ':processes', base .. ':dead', base .. ':running'
local inbox = base .. ':inbox:' .. token
-- A time in which no process at all said that it is alive: the server was away, or all of them.
local AWAY = 3000000
-- How many runs are said to go on at a time.
local KEPT_ON = 5
-- Milliseconds for which an inbox stays.
local INBOX_TIME = 3600000

local at = now()
-- A write that needs no memory comes first, so that signs of life are taken when there is none.
call('SREM', dead, '')
local known = call('HMGET', base, 'tick', 'grace')
local tick, grace = tonumber(known[1] or 0), tonumber(known[2] or 0)
if at < tick then
  -- The server's clock was put back. All that were alive get a new time.
  for _, process in ipairs(call('ZRANGE', processes, 0, -1)) do
    call('ZADD', processes, text(at), process)
  end
end
if at < tick or at > tick + AWAY or call('EXISTS', processes) == 0 then
  grace = at + dead_after
  call('HSET', base, 'grace', text(grace))
end
call('HSET', base, 'tick', text(at))

local function enter()
  -- The score of one that is known is set, but not counted.
  local unknown = call('ZADD', processes, text(at), token)
  if call('EXISTS', inbox) == 0 then
    call('XADD', inbox, '*', 'h', '')
    unknown = 1
  else
    call('XTRIM', inbox, 'MINID', seen)
  end
  -- If no process is left that would find this one dead, nothing else deletes it.
  call('PEXPIRE', inbox, INBOX_TIME)
  return unknown
end

local unknown, taken_for_dead = 0, call('SISMEMBER', dead, token) == 1
if in_use and not taken_for_dead then
  unknown = enter()
end

for _, each in ipairs({base, processes, dead}) do
  call('PEXPIRE', each, text(keep + LONGEST + 86400000)) -- later than all that they tell of
end

if at >= grace then
  for _, process in ipairs(call('ZRANGEBYSCORE', processes, '-inf', text(at - dead_after), 'LIMIT', 0, 10)) do
    call('SADD', dead, process)
    call('ZREM', processes, process)
    call('UNLINK', base .. ':inbox:' .. process)
  end
end
local ended, count, more = {}, 0, 0
local gone = call('SRANDMEMBER', dead, 10)
if taken_for_dead then
  gone = {token}
end
for _, process in ipairs(gone) do
  local first, limit, left = '[' .. process .. ':', SOME - count, 0
  if process == token then
    limit = -1 -- it enters again when all have been looked at
  end
  local members = call('ZRANGEBYLEX', running, first, first .. '\255', 'LIMIT', 0, limit)
  for _, member in ipairs(members) do
    local id = string.sub(member, 18)
    local run = call('HMGET', run_key(id), 'writer', 'successor', 'deaths')
    if not run[1] then
      call('ZREM', running, member)
    elseif run[2] and not run[3] and (process == token or not inherits) then
      left = left + 1 -- until some process inherits it, it is still the writer's
    else
      ended[#ended + 1] = bereave(id, wait, outcome, frees_key)
      count = count + 1
    end
  end
  if process == token then
    call('SREM', dead, process)
    more = 1
  elseif count >= SOME then
    more = 1
    break
  elseif #members == 0 then
    call('SREM', dead, process)
  elseif left < #members then
    more = 1
  end
end

-- Write a run from now on.
local function inherit(id, member)
  local key = run_key(id)
  local run = call('HMGET', key, 'notes', 'size', 'successor', 'watchers')
  call('ZREM', running, member)
  call('ZADD', running, 0, token .. ':' .. id)
  call('HSET', key, 'writer', token, 'watchers', (string.gsub(run[4], token .. ' ', '')))
  keep_on(id)
  return {(find(id)), run[1], tonumber(run[2]), run[3]}
end

local inherited = {}
-- One that was unknown has to find out first what it writes no more.
if inherits and not taken_for_dead and unknown == 0 then
  local first = '[' .. NOBODY .. ':'
  local members = call('ZRANGEBYLEX', running, first, first .. '\255', 'LIMIT', 0, SOME)
  if #members > 0 and not in_use then
    unknown = enter()
  end
  for _, member in ipairs(members) do
    local id = string.sub(member, 18)
    local since = call('HGET', run_key(id), 'waits_since')
    if not since then
      call('ZREM', running, member) -- it has expired
    elseif at > since + wait * 1000 then
      ended[#ended + 1] = end_run(id, outcome, frees_key, token .. 'x')
    else
      inherited[#inherited + 1] = inherit(id, member)
    end
  end
  if #members == SOME then
    more = 1
  end
end

local own = '[' .. token .. ':'
local written = call('ZLEXCOUNT', running, own, own .. '\255')
-- Some of them in each second: all within their time.
local turn = written > 0 and math.floor(at / 1000000) * KEPT_ON % written or 0
for _, member in ipairs(call('ZRANGEBYLEX', running, own, own .. '\255', 'LIMIT', turn, KEPT_ON)) do
  keep_on(string.sub(member, 18))
end
local answer = {unknown, more, ended, written, inherited}
for place = 10, #ARGV do
  local id = ARGV[place]
  local run, writer = find(id)
  if run and run[4] == 0 and writer ~= token and abandoned(writer) then
    run = bereave(id, wait, outcome, frees_key) or find(id)
  elseif run and run[4] == 0 and writer == NOBODY then
    call('ZADD', running, 0, NOBODY .. ':' .. id) -- Redis may have evicted the set
  end
  answer[#answer + 1] = run or 0
end
return answer
