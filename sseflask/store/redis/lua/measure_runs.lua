-- The bytes that runs take, and the microseconds since the first end of one. Of those that are kept
-- for another time the next one to be forgotten stands for all.

local first = call('ZRANGE', base .. ':ended', 0, 0, 'WITHSCORES')[2]
local kept = call('ZRANGE', base .. ':kept', 0, 0)[1]
kept = kept and call('HGET', run_key(string.match(kept, '^(.*):%d+$')), 'at')
local since = math.max(0, now() - math.min(first or math.huge, kept or math.huge))
return {tonumber(call('HGET', base, 'bytes') or 0), text(since)}
