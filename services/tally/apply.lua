-- Applies one step to one petition's tally, all of it or nothing.
--
-- KEYS[1]  hash  the tally: count, revision, updated_at, latest (minute), fence:<lane>, country:<code>,
--                milestone:<threshold> = "<reached|announced>:<count>:<revision>:<reached at, ms>"
-- KEYS[2]  hash  standing signatures by minute: <minute since 1970> = n
-- ARGV[1]  JSON  {lanes: {lane: [expected, after]}, delta, peak, changes, countries: {code: n}, minutes: {minute: n},
--                 thresholds: [n, ...], now: ms}
--
-- Contract: if every fence in `lanes` is stored as expected, the step is applied and every fence moved, in this one call.
-- Otherwise nothing changes. A threshold that the count reaches is recorded here, in the same call, as reached and not
-- yet announced; it stays so, and every call returns it, until announced.lua marks it, also when the count has fallen
-- below it since: whoever was told may have been killed.
--
-- Returns {0, lane, stored, lane, stored, ...}                      a fence was not where it was expected
--         {1, count, revision, threshold, count, revision, ms, ...} applied; then the milestones still to be announced

local tally, by_minute = KEYS[1], KEYS[2]
local step = cjson.decode(ARGV[1])

-- Lua numbers are doubles; written out plainly they would turn into 1e+15.
local function whole(number) return string.format('%.0f', number) end

local stored, moved = {}, false
for lane, move in pairs(step.lanes) do
  local fence = tonumber(redis.call('HGET', tally, 'fence:' .. lane) or '0')
  stored[#stored + 1] = tonumber(lane)
  stored[#stored + 1] = fence
  if fence ~= move[1] then moved = true end
end
if moved then
  table.insert(stored, 1, 0)
  return stored
end

local before = tonumber(redis.call('HGET', tally, 'count') or '0')
local revision = tonumber(redis.call('HGET', tally, 'revision') or '0') + step.changes
local count = before + step.delta

if step.changes > 0 then
  redis.call('HSET', tally, 'count', whole(count), 'revision', whole(revision), 'updated_at', whole(step.now))
  for lane, move in pairs(step.lanes) do
    redis.call('HSET', tally, 'fence:' .. lane, whole(move[2]))
  end
  for code, change in pairs(step.countries) do
    if redis.call('HINCRBY', tally, 'country:' .. code, change) == 0 then
      redis.call('HDEL', tally, 'country:' .. code)
    end
  end
  local latest = tonumber(redis.call('HGET', tally, 'latest') or '0')
  for minute, change in pairs(step.minutes) do
    if redis.call('HINCRBY', by_minute, minute, change) == 0 then
      redis.call('HDEL', by_minute, minute)
    end
    latest = math.max(latest, tonumber(minute))
  end
  redis.call('HSET', tally, 'latest', whole(latest))
end

local reply = {1, count, revision}
local height = math.max(count, before + step.peak)
local names, marks = {}, {}
for i, threshold in ipairs(step.thresholds) do names[i] = 'milestone:' .. whole(threshold) end
if #names > 0 then marks = redis.call('HMGET', tally, unpack(names)) end
for i, threshold in ipairs(step.thresholds) do
  local mark = marks[i]
  if not mark and height >= threshold then
    mark = 'reached:' .. whole(height) .. ':' .. whole(revision) .. ':' .. whole(step.now)
    redis.call('HSET', tally, names[i], mark)
  end
  local at_count, at_revision, at_time = string.match(mark or '', '^reached:(%d+):(%d+):(%d+)$')
  if at_count then
    reply[#reply + 1] = threshold
    reply[#reply + 1] = tonumber(at_count)
    reply[#reply + 1] = tonumber(at_revision)
    reply[#reply + 1] = tonumber(at_time)
  end
end
return reply
