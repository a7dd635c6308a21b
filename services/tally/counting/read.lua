-- Reads one petition's tally atomically. Writes nothing.
--
-- KEYS[1]  hash  the tally
-- KEYS[2]  hash  its minutes
-- ARGV[1]  how many minutes to return, up to the minute of the newest signature
--
-- Returns {{field, value, field, value, ...}, {minute, n, minute, n, ...}, now}, where now is Redis' time in milliseconds
-- since 1970.

local fields = redis.call('HGETALL', KEYS[1])
local latest = tonumber(redis.call('HGET', KEYS[1], 'latest') or '0') or 0
local minutes = {}
if latest > 0 and latest < 2^53 then
  local names = {}
  for minute = latest - tonumber(ARGV[1]) + 1, latest do names[#names + 1] = string.format('%.0f', minute) end
  local counts = redis.call('HMGET', KEYS[2], unpack(names))
  for i, name in ipairs(names) do
    if counts[i] then
      minutes[#minutes + 1] = name
      minutes[#minutes + 1] = counts[i]
    end
  end
end
local clock = redis.call('TIME')
return {fields, minutes, tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)}
