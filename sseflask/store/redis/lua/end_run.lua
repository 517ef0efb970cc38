-- End a run, whichever process writes it. Returns the run and whether this call has ended it, or
-- nothing. If it is `withdrawn` and there is none, it can't be begun for a minute: its claim may
-- still be on its way. It may be not to end if another process goes on with it, or will.

local id, outcome, frees_key, unless_attached, withdrawn = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local unless_passed_on = ARGV[8] == '1'
local run, writer = find(id)
if not run then
  call('ZREM', base .. ':running', token .. ':' .. id) -- it was evicted
  if withdrawn == '1' and call('EXISTS', run_key(id)) == 0 then
    call('HSET', run_key(id), 'withdrawn', 1)
    call('PEXPIRE', run_key(id), 60000)
  end
  return false
end
if run[4] > 0 then
  return {run, 0}
end
if unless_passed_on and writer ~= token and call('HEXISTS', run_key(id), 'successor') == 1 then
  return {run, 0}
end
if unless_attached ~= '' then
  local alive_after = now() - tonumber(unless_attached)
  for process in string.gmatch(call('HGET', run_key(id), 'watchers'), '%x+') do
    local beat = call('ZSCORE', base .. ':processes', process)
    if process ~= token and beat and tonumber(beat) >= alive_after then
      return {run, 0}
    end
  end
end
return {end_run(id, outcome, frees_key, token .. 'x', tonumber(ARGV[9])), 1}
