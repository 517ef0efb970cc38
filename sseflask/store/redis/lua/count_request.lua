-- Counts a request in a window that begins with the first one.
-- KEYS[1]: the window. ARGV: how many it allows; its length in milliseconds.
-- Returns 0, or after how many milliseconds the window is over.
local count = redis.call('INCR', KEYS[1])
if count == 1 or redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if count <= tonumber(ARGV[1]) then
  return 0
end
return math.max(1, redis.call('PTTL', KEYS[1]))
