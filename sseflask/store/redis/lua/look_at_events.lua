-- Where the events are; and a process says that it is there.
-- ARGV: the generation that the process knows, its name.
-- Replies: 1, the epoch, the newest number, the count of notices, how many since the newest event.
-- Or 0: the process does not know the generation.
local known = redis.call('HMGET', meta, 'e', 'g', 'n', 'm', 's')
if not known[1] or known[2] ~= ARGV[1] then
  return {0}
end
say_here(known[2], ARGV[2])
return {1, known[1], tonumber(known[3]), tonumber(known[4]), tonumber(known[5])}
