-- End some of the runs that this process writes. Returns them.

local ended = {}
local first = '[' .. token .. ':'
for _, member in ipairs(call('ZRANGEBYLEX', base .. ':running', first, first .. '\255', 'LIMIT', 0, SOME)) do
  local id = string.sub(member, 18)
  if call('HEXISTS', run_key(id), 'writer') == 1 then
    ended[#ended + 1] = end_run(id, ARGV[3], ARGV[4], token .. 'x')
  else
    call('ZREM', base .. ':running', member)
  end
end
return ended
