-- Begin a run, unless there is one with the same key.

local id, subject, account, most = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local label, key, digest, most_bytes = ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
local outcome, frees_key = ARGV[11], ARGV[12]
local its_keep, successor, wait = ARGV[13], ARGV[14], ARGV[15]
local named, members = base .. ':key:' .. key, base .. ':account:' .. account

if key ~= '' then
  local known = call('GET', named)
  local run, writer
  if known and known ~= id then
    run, writer = find(known, true)
  end
  if run and run[4] == 0 and abandoned(writer) then
    run = bereave(known, wait, outcome, frees_key) or run
    if call('GET', named) ~= known then
      run = nil
    end
  end
  if run then
    if call('HGET', run_key(known), 'digest') ~= digest then
      return {'reused'}
    end
    return {'known', run}
  end
end

local before = call('HMGET', run_key(id), 'writer', 'withdrawn')
if before[1] == token then
  return {'fresh'} -- this is a repetition, after an answer that was lost
elseif before[1] or before[2] then
  return {'withdrawn'}
end
if not call('ZSCORE', base .. ':processes', token) then
  return {'enter'}
end
local _, full = make_room(most_bytes)
if full then
  return {'full'}
end
local running = call('SCARD', members)
if running >= most and running > 0 then
  -- Redis may have evicted some.
  for _, each in ipairs(call('SRANDMEMBER', members, SOME)) do
    if call('EXISTS', run_key(each)) == 0 then
      call('SREM', members, each)
      running = running - 1
    end
  end
end
if running >= most then
  return {'many', running}
end

call(
  'HSET', run_key(id), 'writer', token, 'subject', subject, 'account', account, 'label', label,
  'key', key, 'digest', digest, 'last', 0, 'size', 0, 'notes', '', 'watchers', ''
)
if its_keep ~= '' then
  call('HSET', run_key(id), 'keep', its_keep)
end
if successor ~= '' then
  call('HSET', run_key(id), 'successor', successor)
end
call('SADD', members, id)
call('ZADD', base .. ':running', 0, token .. ':' .. id)
if key ~= '' then
  call('SET', named, id)
end
call('HINCRBY', base, 'bytes', RUN_BYTES)
keep_on(id)
return {'fresh'}
