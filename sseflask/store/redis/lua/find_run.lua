-- Find a run, of one subject if it is given.

local id, subject = ARGV[3], ARGV[4]
local run = find(id)
if run and subject and call('HGET', run_key(id), 'subject') ~= subject then
  return false
end
return run or false
