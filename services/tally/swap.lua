-- Puts a rebuilt tally in the place of the stored one, unless the stored one has counted more.
--
-- KEYS[1]  hash  the tally            KEYS[3]  hash  the rebuilt tally
-- KEYS[2]  hash  its minutes          KEYS[4]  hash  the rebuilt minutes
-- ARGV[1]  "force": swap whatever the stored fences say
-- ARGV[2]  the rebuilt revision; ARGV[3]  how many minutes were rebuilt
--
-- Contract: the rebuilt state comes from one snapshot of the ledger. Where a stored fence is above the rebuilt one, facts
-- were counted after that snapshot; swapping would take them back, so nothing changes and 0 is returned: take a newer
-- snapshot. The same when the rebuilt keys are not whole: they go by themselves after a while, and a process that slept
-- so long would put nothing in the place of the tally. Milestones that only Redis knows of yet are carried over. Returns 1
-- when swapped.

local whole = tonumber(redis.call('HGET', KEYS[3], 'revision') or '0') == tonumber(ARGV[2])
if not whole or redis.call('HLEN', KEYS[4]) ~= tonumber(ARGV[3]) then
  redis.call('DEL', KEYS[3], KEYS[4])
  return 0
end

if ARGV[1] ~= 'force' then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local lane = string.match(fields[i], '^fence:(%d+)$')
    if lane then
      local rebuilt = tonumber(redis.call('HGET', KEYS[3], fields[i]) or '0')
      if tonumber(fields[i + 1]) > rebuilt then
        redis.call('DEL', KEYS[3], KEYS[4])
        return 0
      end
    end
  end
end

local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.match(fields[i], '^milestone:') then
    redis.call('HSETNX', KEYS[3], fields[i], fields[i + 1])
  end
end

for i = 1, 2 do
  if redis.call('EXISTS', KEYS[i + 2]) == 1 then
    redis.call('PERSIST', KEYS[i + 2])
    redis.call('RENAME', KEYS[i + 2], KEYS[i])
  else
    redis.call('DEL', KEYS[i])
  end
end
return 1
