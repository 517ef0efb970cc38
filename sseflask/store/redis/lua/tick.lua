-- Say that a process is alive, end some runs of dead ones, and look at some runs.
--
-- Returns whether the process was unknown; whether there is more to end; the runs that were ended;
-- how many runs it writes; and, for each run that was to be looked at, the run or 0.

local in_use, dead_after, seen = ARGV[3] == '1', tonumber(ARGV[4]), ARGV[5]
local outcome, frees_key = ARGV[6], ARGV[7]
local processes, dead, running = base .. ':processes', base .. ':dead', base .. ':running'
local inbox = base .. ':inbox:' .. token
-- A time in which no process at all said that it is alive: the server was away, or all of them.
local AWAY = 3000000
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

local unknown = 0
if in_use and call('SISMEMBER', dead, token) == 0 then
  unknown = call('ZADD', processes, text(at), token)
  -- The score of one that is known is set, but not counted.
  if call('EXISTS', inbox) == 0 then
    call('XADD', inbox, '*', 'h', '')
    unknown = 1
  else
    call('XTRIM', inbox, 'MINID', seen)
  end
  -- If no process is left that would find this one dead, nothing else deletes it.
  call('PEXPIRE', inbox, INBOX_TIME)
end

if at >= grace then
  for _, process in ipairs(call('ZRANGEBYSCORE', processes, '-inf', text(at - dead_after), 'LIMIT', 0, 10)) do
    call('SADD', dead, process)
    call('ZREM', processes, process)
    call('UNLINK', base .. ':inbox:' .. process)
  end
end
local ended, more = {}, 0
for _, process in ipairs(call('SRANDMEMBER', dead, 10)) do
  local first = '[' .. process .. ':'
  local members = call('ZRANGEBYLEX', running, first, first .. '\255', 'LIMIT', 0, SOME - #ended)
  for _, member in ipairs(members) do
    local id = string.sub(member, 18)
    if call('HEXISTS', run_key(id), 'writer') == 1 then
      ended[#ended + 1] = end_run(id, outcome, frees_key, token .. 'x')
    else
      call('ZREM', running, member)
    end
  end
  if #ended >= SOME then
    more = 1
    break
  elseif #members == 0 then
    call('SREM', dead, process)
  else
    more = 1
  end
end

local own = '[' .. token .. ':'
local answer = {unknown, more, ended, call('ZLEXCOUNT', running, own, own .. '\255')}
for place = 8, #ARGV do
  local run, writer = find(ARGV[place])
  if run and run[4] == 0 and writer ~= token and abandoned(writer) then
    run = end_run(ARGV[place], outcome, frees_key, token .. 'x')
  end
  answer[#answer + 1] = run or 0
end
return answer
