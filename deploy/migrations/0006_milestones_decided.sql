-- tally's decisions, for notify to read. A row with an impossible threshold, count or time does not count as decided.
CREATE VIEW milestones_decided AS
SELECT petition_id, threshold, count, revision, reached_at, announced_at FROM milestones
WHERE threshold >= 1 AND count >= 1 AND revision >= 1
  AND reached_at >= '2000-01-01 00:00:00+00' AND reached_at < '3000-01-01 00:00:00+00';

-- Marks a waiting milestone that tally never decided: it does not become a mail and is kept for inspection.
ALTER TABLE milestones_waiting ADD COLUMN refused_at timestamptz NULL;

-- Rules against rows of deliveries that would block every sender. Existing rows are corrected first: an update of a row that
-- violates a rule would fail.
UPDATE deliveries SET attempts = greatest(attempts, 0), takeovers = greatest(takeovers, 0)
WHERE attempts < 0 OR takeovers < 0;

UPDATE deliveries SET state = 'failed', folded_into = NULL, chosen_at = coalesce(chosen_at, now()), finished_at = now(),
                      last_reply = 'not sent: it is folded into a row that is no mail to its target'
WHERE folded_into = delivery_id;

UPDATE deliveries
SET reached_at = CASE WHEN reached_at >= '2000-01-01 00:00:00+00' AND reached_at < '3000-01-01 00:00:00+00'
                      THEN reached_at ELSE now() END,
    due_at = CASE WHEN due_at >= '2000-01-01 00:00:00+00' AND due_at < '3000-01-01 00:00:00+00'
                  THEN due_at ELSE now() END,
    chosen_at = CASE WHEN chosen_at >= '2000-01-01 00:00:00+00' AND chosen_at < '3000-01-01 00:00:00+00'
                     THEN chosen_at WHEN chosen_at IS NOT NULL THEN now() END,
    leased_until = CASE WHEN leased_until >= '2000-01-01 00:00:00+00' AND leased_until < '3000-01-01 00:00:00+00'
                        THEN leased_until WHEN leased_until IS NOT NULL THEN now() END,
    deferred_since = CASE WHEN deferred_since >= '2000-01-01 00:00:00+00' AND deferred_since < '3000-01-01 00:00:00+00'
                          THEN deferred_since END
WHERE least(reached_at, due_at, chosen_at, leased_until, deferred_since) < '2000-01-01 00:00:00+00'
   OR greatest(reached_at, due_at, chosen_at, leased_until, deferred_since) >= '3000-01-01 00:00:00+00';

ALTER TABLE deliveries
    ADD CONSTRAINT deliveries_tries CHECK (attempts >= 0 AND takeovers >= 0) NOT VALID,
    ADD CONSTRAINT deliveries_not_folded_into_itself CHECK (folded_into <> delivery_id) NOT VALID,
    -- Also excludes infinity and years that no program can read.
    ADD CONSTRAINT deliveries_times CHECK (
        least(reached_at, due_at, chosen_at, leased_until, deferred_since) >= '2000-01-01 00:00:00+00'
        AND greatest(reached_at, due_at, chosen_at, leased_until, deferred_since) < '3000-01-01 00:00:00+00') NOT VALID;
