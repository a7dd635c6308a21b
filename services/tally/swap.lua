-- Puts a rebuilt tally in the place of the stored one, unless the stored one has counted more.
--
-- KEYS[1]  hash  the tally            KEYS[3]  hash  the rebuilt tally
-- KEYS[2]  hash  its minutes          KEYS[4]  hash  the rebuilt minutes
-- ARGV[1]  "force": swap whatever the stored fences say
--
-- Contract: the rebuilt state comes from one snapshot of the ledger. Where a stored fence is above the rebuilt one, facts
-- were counted after that snapshot; swapping would take them back, so nothing changes and 0 is returned: take a newer
-- snapshot. Milestones that only Redis knows of yet are carried over. Returns 1 when swapped.

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
