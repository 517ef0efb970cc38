-- The bytes that runs take, and the microseconds since the first end of one.

local first = call('ZRANGE', base .. ':ended', 0, 0, 'WITHSCORES')[2]
local since = first and math.max(0, now() - first) or 0
return {tonumber(call('HGET', base, 'bytes') or 0), text(since)}
