-- Which of some runs have living processes attached to them, other than the calling one.

local alive_after = now() - tonumber(ARGV[3])
local attached = {}
for place = 4, #ARGV do
  local id = ARGV[place]
  for process in string.gmatch(call('HGET', run_key(id), 'watchers') or '', '%x+') do
    local beat = call('ZSCORE', base .. ':processes', process)
    if process ~= token and beat and tonumber(beat) >= alive_after then
      attached[#attached + 1] = id
      break
    end
  end
end
return attached
