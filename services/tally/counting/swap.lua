-- Replaces the stored tally by a rebuilt one, unless the stored one has counted more.
--
-- KEYS[1]  hash  the tally            KEYS[3]  hash  the rebuilt tally
-- KEYS[2]  hash  its minutes          KEYS[4]  hash  the rebuilt minutes
-- ARGV[1]  "force": swap whatever the stored fences and version are
-- ARGV[2]  the rebuilt revision; ARGV[3]  how many minutes were rebuilt; ARGV[4]  the rebuilt epoch
-- ARGV[5]  JSON {lane: position}: stored fences that are not in the ledger, which are given up
--
-- Contract: the rebuilt state comes from one snapshot of the ledger. Where a stored fence is above the rebuilt one, facts
-- were counted after that snapshot, or the fence is not in the ledger; nothing changes, and the caller finds out which. A
-- tally's version, (epoch, revision), never falls: a rebuilt tally with a lower revision needs a higher epoch. Nothing
-- changes either if the rebuilt keys are incomplete: they expire, and a process that was stopped for so long would replace
-- the tally by nothing. Milestones that only Redis knows yet are carried over. A stored value of the wrong type is treated
-- as absent.
--
-- Returns {1}                               swapped
--         {0, lane, stored, lane, stored}   these stored fences are above the rebuilt ones; none given: the rebuilt keys
--                                           were incomplete. Rebuild from a newer snapshot
--         {2, epoch, revision}              the stored version is higher: rebuild with a higher epoch

local function give_up(reply)
  redis.call('DEL', KEYS[3], KEYS[4])
  return reply
end

-- The number in a field; 0 if it is not a valid number.
local function number(text)
  local found = text and string.match(text, '^%d+$') and #text <= 16 and tonumber(text)
  return found and found <= 2^53 and found or 0
end

local revision, epoch = tonumber(ARGV[2]), tonumber(ARGV[4])
local whole = tonumber(redis.call('HGET', KEYS[3], 'revision') or '0') == revision
if not whole or redis.call('HLEN', KEYS[4]) ~= tonumber(ARGV[3]) then
  return give_up({0})
end

local fields = {}
if redis.call('TYPE', KEYS[1]).ok == 'hash' then fields = redis.call('HGETALL', KEYS[1]) end
local given_up = cjson.decode(ARGV[5])
local above, version = {0}, {0, 0}
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  local lane = string.match(name, '^fence:(%d+)$')
  if lane and number(value) > tonumber(redis.call('HGET', KEYS[3], name) or '0') and number(value) ~= given_up[lane] then
    above[#above + 1] = tonumber(lane)
    above[#above + 1] = number(value)
  end
  if name == 'epoch' then version[1] = number(value) end
  if name == 'revision' then version[2] = number(value) end
end
if ARGV[1] ~= 'force' then
  if #above > 1 then return give_up(above) end
  if version[1] > epoch or (version[1] == epoch and version[2] > revision) then
    return give_up({2, version[1], version[2]})
  end
end

for i = 1, #fields, 2 do
  if string.match(fields[i], '^milestone:%d+$') then
    redis.call('HSETNX', KEYS[3], fields[i], fields[i + 1])
  end
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  redis.call('HSET', KEYS[3], 'updated_at', string.format('%.0f', now))
end

for i = 1, 2 do
  if redis.call('EXISTS', KEYS[i + 2]) == 1 then
    redis.call('PERSIST', KEYS[i + 2])
    redis.call('RENAME', KEYS[i + 2], KEYS[i])
  else
    redis.call('DEL', KEYS[i])
  end
end
return {1}
