-- Read frames of a run after a number: at most so many, and not many more bytes than so many.

local id, after, limit, most_bytes = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local AT_ONCE = 20

local key = run_key(id)
local upto = math.min(tonumber(call('HGET', key, 'last') or 0), after + limit)
local frames, bytes = {}, 0
while after < upto and bytes < most_bytes do
  local numbers = {}
  for number = after + 1, math.min(upto, after + AT_ONCE) do
    numbers[#numbers + 1] = number
  end
  for _, frame in ipairs(call('HMGET', key, unpack(numbers))) do
    if bytes >= most_bytes then
      break
    end
    frames[#frames + 1] = frame
    bytes = bytes + #frame
  end
  after = after + #numbers
end
return frames
