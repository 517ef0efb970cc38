-- Send a process what becomes of a run. Returns the run, nothing, or 0 if the process is unknown.

local id = ARGV[3]
local run, writer = find(id)
if not run then
  return false
elseif run[4] == 0 and writer ~= token then
  if call('EXISTS', base .. ':inbox:' .. token) == 0 then
    return 0
  end
  local watchers = call('HGET', run_key(id), 'watchers')
  if not string.find(watchers, token, 1, true) then
    call('HSET', run_key(id), 'watchers', watchers .. token .. ' ')
    send(writer, 'w', id)
  end
end
return run
