-- Send a process no longer what becomes of a run.

local id = ARGV[3]
local found = call('HMGET', run_key(id), 'watchers', 'writer')
if found[1] and string.find(found[1], token, 1, true) then
  call('HSET', run_key(id), 'watchers', (string.gsub(found[1], token .. ' ', '')))
  send(found[2], 'w', id)
end
return 1
