-- Adds notices to the tail, one for each body.
-- ARGV: the generation that the process knows, the time in seconds after which a process that has
-- said nothing is not there, the seconds for which events stay, the kind, the bodies.
-- Replies: 1, the epoch, the newest number, the count of notices, and the processes that are there.
-- Or 0: the process does not know the generation.
local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'm', 's')
local epoch, generation = known[1], known[2]
if not epoch or generation ~= ARGV[1] then
  return {0}
end
local newest, noticed, place = tonumber(known[3]), tonumber(known[4]), tonumber(known[5])
for index = 5, #ARGV do
  place = place + 1
  add_notice(generation, newest, noticed, text(newest) .. '-' .. place, ARGV[4], ARGV[index])
  noticed = noticed + 1
end
redis.call('HSET', meta, 'm', noticed, 's', place)
-- Where nothing is published but notices are sent, nothing else trims the tail.
local tail, time = key(generation, 'tail'), now()
local mark = redis.call('HMGET', meta, 'y', 'z')
if not mark[1] or time < tonumber(mark[1]) or time >= mark[1] + math.max(TAIL_SECONDS, 2 * ARGV[3]) then
  if mark[2] and redis.call('XLEN', tail) > TAIL then
    redis.call('XTRIM', tail, 'MINID', '~', mark[2], 'LIMIT', 10000)
  end
  redis.call('HSET', meta, 'y', string.format('%.3f', time), 'z', text(newest) .. '-' .. place)
end
local since = time - tonumber(ARGV[2])
return {1, epoch, newest, noticed, redis.call('ZRANGEBYSCORE', key(generation, 'here'), since, '+inf')}
