-- Adds notices to the tail, one for each body.
-- ARGV: the generation that the process knows, the time in seconds after which a process that has
-- said nothing is not there, the kind, the bodies.
-- Replies: 1, the epoch, the newest number, the count of notices, and the processes that are there.
-- Or 0: the process does not know the generation.
local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'm', 's')
local epoch, generation = known[1], known[2]
if not epoch or generation ~= ARGV[1] then
  return {0}
end
local newest, noticed, place = tonumber(known[3]), tonumber(known[4]), tonumber(known[5])
for index = 4, #ARGV do
  place = place + 1
  add_notice(generation, newest, noticed, text(newest) .. '-' .. place, ARGV[3], ARGV[index])
  noticed = noticed + 1
end
redis.call('HSET', meta, 'm', noticed, 's', place)
local since = now() - tonumber(ARGV[2])
return {1, epoch, newest, noticed, redis.call('ZRANGEBYSCORE', key(generation, 'here'), since, '+inf')}
