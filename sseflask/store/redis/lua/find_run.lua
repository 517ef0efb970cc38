-- Find a run; if a subject is given, only if it is the subject's and its time is not over.

local id, subject = ARGV[3], ARGV[4]
local run = find(id, subject)
if run and subject and call('HGET', run_key(id), 'subject') ~= subject then
  return false
end
return run or false
