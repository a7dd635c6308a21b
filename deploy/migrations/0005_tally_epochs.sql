-- Written by tally.

-- What tally takes back, stays taken back: a snapshot whose revision nobody had counted, or counts that the ledger has lost.
-- Snapshots of the epoch stand above all that were announced before it, whatever their revision. No row: epoch 0.
CREATE TABLE tally_epochs (
    petition_id text        NOT NULL PRIMARY KEY,
    epoch       bigint      NOT NULL CHECK (epoch > 0),
    raised_at   timestamptz NOT NULL DEFAULT now()
);

-- What no milestone can be cannot be written, by hand either: a row like that could not be announced. NOT VALID: rows that
-- are there are not read for it, so that the table is not locked for long.
ALTER TABLE milestones ADD CONSTRAINT milestones_can_be
    CHECK (threshold >= 1 AND count >= threshold AND revision >= 1 AND reached_at BETWEEN '2000-01-01' AND '2200-01-01') NOT VALID;

-- The same of the times by which counts are broken down.
ALTER TABLE ledger ADD CONSTRAINT ledger_times_can_be
    CHECK (signed_at BETWEEN '1970-01-01' AND '2200-01-01' AND occurred_at BETWEEN '1970-01-01' AND '2200-01-01') NOT VALID;
