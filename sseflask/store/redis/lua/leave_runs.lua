-- End some runs, those that the calling process writes and that go on; those that others can go on
-- with wait for one that does. Returns the ones that were ended, and the ids of the others.

local outcome, frees_key, wait = ARGV[3], ARGV[4], ARGV[5]
local ended, passed_on = {}, {}
for place = 6, #ARGV do
  local id = ARGV[place]
  local run, writer = find(id)
  if run and run[4] == 0 and writer == token then
    if call('HEXISTS', run_key(id), 'successor') == 1 then
      wait_for_writer(id, wait)
      passed_on[#passed_on + 1] = id
    else
      ended[#ended + 1] = end_run(id, outcome, frees_key, token .. 'x')
    end
  end
end
return {ended, passed_on}
