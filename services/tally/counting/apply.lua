-- Applies one step to one petition's tally, completely or not at all.
--
-- KEYS[1]  hash  the tally: count, revision, epoch, updated_at, latest (minute), fence:<lane>, country:<code>,
--                milestone:<threshold> = "<reached|announced>:<count>:<revision>:<reached at, ms>"
-- KEYS[2]  hash  standing signatures by minute: <minute since 1970> = n
-- ARGV[1]  JSON  {lanes: {lane: [expected, after]}, delta, peak, highest, changes, countries: {code: n},
--                 minutes: {minute: n}, thresholds: [n, ...], first: whether nothing was ever counted}
--
-- Contract: if every fence in `lanes` is stored as expected, the step is applied and every fence moved, in this one call.
-- Otherwise nothing changes. A step that is not the petition's first is not applied where there is no tally: what was
-- counted before would be lost unnoticed. A threshold that the count reaches is recorded in the same call, as reached and
-- not yet announced. Every call returns it until announced.lua marks it, even if the count has fallen below it since: the
-- process that got it may have been killed. `highest` is a count that the petition once had, according to the ledger: after
-- a rebuild, milestones up to it are reached, too.
--
-- The time is Redis' own, so that a process with a wrong clock cannot put a wrong time into a tally.
--
-- Returns {0, there, lane, stored, lane, stored, ...}               a fence was not where it was expected, or there is no
--                                                                   tally (there = 0) and the step is not its first
--         {1, count, revision, threshold, count, revision, ms, ...} applied; then the milestones still to be announced
--         {2, field}                                                a stored value is not a valid number
-- A value of the wrong type raises Redis' own error, possibly after a part of the step; the caller rebuilds the tally.

local tally, by_minute = KEYS[1], KEYS[2]
local step = cjson.decode(ARGV[1])

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local day_ahead = math.floor(tonumber(clock[1]) / 60) + 1440

-- Lua numbers are doubles; tostring would write a large one as 1e+15.
local function whole(number) return string.format('%.0f', number) end

-- Beyond 2^53 a double is not exact.
local function stored_number(name, least)
  local text = redis.call('HGET', tally, name)
  if not text then return 0 end
  local number = string.match(text, '^%-?%d+$') and #text <= 17 and tonumber(text)
  if not number or math.abs(number) > 2^53 or (least and number < least) then return nil end
  return number
end

local stored, moved = {}, false
for lane, move in pairs(step.lanes) do
  local fence = stored_number('fence:' .. lane, 0)
  if not fence then return {2, 'fence:' .. lane} end
  stored[#stored + 1] = tonumber(lane)
  stored[#stored + 1] = fence
  if fence ~= move[1] then moved = true end
end
local there = redis.call('HEXISTS', tally, 'revision')
if moved or (step.changes > 0 and there == 0 and not step.first) then
  table.insert(stored, 1, there)
  table.insert(stored, 1, 0)
  return stored
end

local before, revision = stored_number('count'), stored_number('revision', 0)
if not before then return {2, 'count'} end
if not revision then return {2, 'revision'} end
local latest = stored_number('latest', 0)
if not latest or latest > day_ahead then return {2, 'latest'} end
revision = revision + step.changes
local count = before + step.delta

if step.changes > 0 then
  redis.call('HSET', tally, 'count', whole(count), 'revision', whole(revision), 'updated_at', whole(now))
  for lane, move in pairs(step.lanes) do
    redis.call('HSET', tally, 'fence:' .. lane, whole(move[2]))
  end
  for code, change in pairs(step.countries) do
    if redis.call('HINCRBY', tally, 'country:' .. code, change) == 0 then
      redis.call('HDEL', tally, 'country:' .. code)
    end
  end
  for minute, change in pairs(step.minutes) do
    if redis.call('HINCRBY', by_minute, minute, change) == 0 then
      redis.call('HDEL', by_minute, minute)
    end
    -- A minute far in the future would stay the newest, and the hour before it would be empty.
    if tonumber(minute) <= day_ahead then latest = math.max(latest, tonumber(minute)) end
  end
  redis.call('HSET', tally, 'latest', whole(latest))
end

-- Whether a mark's numbers are possible. A rebuild carries marks over, so an impossible one would stay for ever.
local function can_be(threshold, at_count, at_revision, at_time)
  at_count, at_revision, at_time = tonumber(at_count), tonumber(at_revision), tonumber(at_time)
  return at_count >= threshold and at_count <= 2^53 and at_revision >= 1 and at_revision <= 2^53
    and at_time >= 946684800000 and at_time <= day_ahead * 60000  -- from the year 2000 on
end

local reply = {1, count, revision}
-- Without a tally nothing is known to be counted, so no milestone is reached.
local height = revision > 0 and math.max(count, before + step.peak, step.highest) or 0
local names, marks = {}, {}
for i, threshold in ipairs(step.thresholds) do names[i] = 'milestone:' .. whole(threshold) end
if #names > 0 then marks = redis.call('HMGET', tally, unpack(names)) end
for i, threshold in ipairs(step.thresholds) do
  local state, at_count, at_revision, at_time = string.match(marks[i] or '', '^(%l+):(%d+):(%d+):(%d+)$')
  local written = state == 'announced' or (state == 'reached' and can_be(threshold, at_count, at_revision, at_time))
  if not written then  -- there is no mark, or one that this script cannot have written
    state = nil
    if height >= threshold then
      state, at_count, at_revision, at_time = 'reached', whole(height), whole(revision), whole(now)
      redis.call('HSET', tally, names[i], state .. ':' .. at_count .. ':' .. at_revision .. ':' .. at_time)
    end
  end
  if state == 'reached' then
    reply[#reply + 1] = threshold
    reply[#reply + 1] = tonumber(at_count)
    reply[#reply + 1] = tonumber(at_revision)
    reply[#reply + 1] = tonumber(at_time)
  end
end
return reply
