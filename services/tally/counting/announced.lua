-- Marks milestones as announced, after Kafka has acknowledged them and PostgreSQL has recorded it.
--
-- KEYS[1]  hash  the tally
-- ARGV     the thresholds
--
-- Contract: a milestone that is not recorded here, because Redis lost it meanwhile, stays unrecorded. The next step records
-- it again, and PostgreSQL knows that it was announced.

for _, threshold in ipairs(ARGV) do
  local name = 'milestone:' .. threshold
  local mark = redis.call('HGET', KEYS[1], name)
  if mark then
    redis.call('HSET', KEYS[1], name, (string.gsub(mark, '^reached:', 'announced:')))
  end
end
return #ARGV
