-- A process looks at the server before it does anything else there.
-- ARGV: the server's identity, a new epoch, a new generation, how many numbers are left out if events
-- may have been lost, and what the process knows: generation, epoch, the highest number, the nonce of its entry; its name.
-- Replies: epoch, generation, newest number, count of notices, how many since the newest event.
-- Seconds for which the processes that used another server are awaited, before anything is stored; and
-- before the newest sign of life, in which they gave theirs.
local AWAITED, HERE = 3, 5
local identity, new_epoch, new_generation, left_out = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local own_generation, own_epoch, own, own_nonce = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]

local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'm', 's', 'i', 'h', 'j')
local epoch, generation, newest = known[1], known[2], tonumber(known[3] or nil)
local noticed, place = tonumber(known[4] or 0), tonumber(known[5] or 0)
local seen, holes, jump = known[6], known[7] or '', tonumber(known[8] or 0)
if not epoch or not generation or not newest then
  redis.call('DEL', meta)
  redis.call('HSET', meta, 'e', new_epoch, 'g', new_generation, 'n', 0, 'm', 0, 's', 0, 'f', 0,
    'c', 0, 'i', identity, 'h', '', 'a', 0, 'l', 0, 't', 0, 'j', 0)
  say_here(new_generation, ARGV[9])
  return {new_epoch, new_generation, 0, 0, 0}
end

if identity ~= '' and seen ~= identity then
  -- Another server, or the same one with what it read from its disk: events with higher numbers may
  -- have been lost that clients have seen. Their numbers are never given to others.
  -- Also if it has none: it may have been saved before the first one.
  jump = math.max(newest, jump) + left_out
  holes = holes .. text(newest) .. ':' .. text(jump) .. ' '
  if #holes > 1000 then
    holes = string.gsub(holes, '^%S+ ', '')
  end
  -- A write that needs no memory comes first, as events can be read while there is none.
  local here, awaited = key(generation, 'here'), key(generation, 'awaited')
  redis.call('ZREM', here, '')
  redis.call('HSET', meta, 'i', identity, 'j', text(jump), 'h', holes)
  -- One of the others may know what was lost. All are to be told before they are given what is next.
  local last = redis.call('ZREVRANGE', here, 0, 0, 'WITHSCORES')[2]
  if last then
    for _, process in ipairs(redis.call('ZRANGEBYSCORE', here, last - HERE, '+inf')) do
      redis.call('ZADD', awaited, 0, process)
    end
    redis.call('EXPIRE', awaited, AWAITED)
  end
end
redis.call('ZREM', key(generation, 'awaited'), ARGV[9])

if own_generation == generation and own_epoch == epoch and own > 0 then
  local lost = own > newest
  for before, behind in string.gmatch(holes, '(%d+):(%d+)') do
    lost = lost or (own > tonumber(before) and own < tonumber(behind))
  end
  if identity == '' and own_nonce ~= '' and not lost then
    local entry = redis.call('XRANGE', key(generation, 'tail'), text(own) .. '-0', text(own) .. '-0')
    lost = #entry > 0 and string.match(entry[1][2][2], '%S+$') ~= own_nonce
  end
  if lost then
    epoch, noticed, place = new_epoch, noticed + 1, place + 1
    add_notice(generation, newest, noticed - 1, text(newest) .. '-' .. place, 'epoch', epoch)
    redis.call('HSET', meta, 'e', epoch, 'm', noticed, 's', place)
  end
end
say_here(generation, ARGV[9])
return {epoch, generation, newest, noticed, place}
