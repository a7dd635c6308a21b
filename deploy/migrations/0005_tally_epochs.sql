-- Written by tally.

-- The epochs in which tally took back a snapshot that it had not counted, or counts that the ledger has lost. Snapshots of
-- an epoch supersede all earlier ones, whatever their revision. No row: epoch 0.
CREATE TABLE tally_epochs (
    petition_id text        NOT NULL PRIMARY KEY,
    epoch       bigint      NOT NULL CHECK (epoch > 0),
    raised_at   timestamptz NOT NULL DEFAULT now()
);

-- Refuses impossible milestones, which could not be announced, also if written manually. NOT VALID: existing rows are not
-- checked, so that the table is not locked for long.
ALTER TABLE milestones ADD CONSTRAINT milestones_can_be
    CHECK (threshold >= 1 AND count >= threshold AND revision >= 1 AND reached_at BETWEEN '2000-01-01' AND '2200-01-01') NOT VALID;

-- The same for the times of the break-downs.
ALTER TABLE ledger ADD CONSTRAINT ledger_times_can_be
    CHECK (signed_at BETWEEN '1970-01-01' AND '2200-01-01' AND occurred_at BETWEEN '1970-01-01' AND '2200-01-01') NOT VALID;
