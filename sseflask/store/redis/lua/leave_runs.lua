-- End some runs, those that the calling process writes and that go on. Returns them.

local ended = {}
for place = 5, #ARGV do
  local id = ARGV[place]
  local run, writer = find(id)
  if run and run[4] == 0 and writer == token then
    ended[#ended + 1] = end_run(id, ARGV[3], ARGV[4], token .. 'x')
  end
end
return ended
