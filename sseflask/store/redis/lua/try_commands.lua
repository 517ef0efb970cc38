-- Finds out whether the server stores, and whether its user may use all commands of our scripts.
-- KEYS[1] is a key that does not exist. Nothing is stored, but for a moment one element of a set.
-- Replies: OK, or the error.
local key = KEYS[1]
local COMMANDS = {
  {'GET', key}, {'EXISTS', key}, {'DEL', key}, {'UNLINK', key}, {'PTTL', key}, {'TIME'},
  {'EXPIRE', key, 1}, {'PEXPIRE', key, 1},
  {'HGET', key, 'f'}, {'HMGET', key, 'f'}, {'HGETALL', key}, {'HEXISTS', key, 'f'},
  -- These are refused for their arguments, and only after their right was looked at.
  {'HSET', key, 'f', 'v', 'odd'}, {'HINCRBY', key, 'f', 'none'},
  {'SADD', key, 'm'}, {'SCARD', key}, {'SISMEMBER', key, 'm'}, {'SRANDMEMBER', key, 1}, {'SREM', key, 'm'},
  {'ZADD', key, 'XX', 1, 'm'}, {'ZCARD', key}, {'ZSCORE', key, 'm'}, {'ZREM', key, 'm'},
  {'ZRANGE', key, 0, 0}, {'ZREVRANGE', key, 0, 0}, {'ZRANGEBYLEX', key, '-', '+'}, {'ZLEXCOUNT', key, '-', '+'},
  {'ZRANGEBYSCORE', key, 0, 0}, {'ZREVRANGEBYSCORE', key, 0, 0}, {'ZREMRANGEBYSCORE', key, 0, 0},
  {'XADD', key, 'NOMKSTREAM', '*', 'f', 'v'}, {'XLEN', key}, {'XTRIM', key, 'MAXLEN', 0},
  {'XRANGE', key, '-', '+'}, {'XREVRANGE', key, '+', '-'}, {'XREAD', 'STREAMS', key, '0'},
}

-- What a user lacks is said in other words by each version.
local function is_denied(reply)
  return type(reply) == 'table' and reply.err and (string.find(reply.err, 'NOPERM', 1, true)
    or string.find(reply.err, 'run this command', 1, true) or string.find(reply.err, 'no permissions', 1, true)
    or string.find(reply.err, "can't access", 1, true))
end

-- A write that needs memory comes first: after another one a script is refused none.
local stored = redis.pcall('SET', key, '', 'XX')
local denied = {}
if is_denied(stored) then
  denied[1] = 'set'
elseif type(stored) == 'table' and stored.err then
  return stored
end
for _, command in ipairs(COMMANDS) do
  if is_denied(redis.pcall(unpack(command))) then
    denied[#denied + 1] = string.lower(command[1])
  end
end
if #denied > #COMMANDS / 2 then
  return redis.error_reply('NOPERM no right to use these keys')
elseif #denied > 0 then
  return redis.error_reply('NOPERM no right to use ' .. table.concat(denied, ' '))
end
return redis.status_reply('OK')
