-- Written by notify; requeued_* also by `groundswell deliveries retry`.

ALTER TABLE deliveries
    -- Why it failed: a failure that another address corrects is due again once the petition has one. Empty in rows of older
    -- versions until notify has read their last reply.
    ADD COLUMN failed_for text NULL
        CHECK (failed_for IN ('address', 'server', 'target', 'withheld', 'moved')),
    -- A server may have accepted the mail: its reply to the content was lost, or a sender did not finish. If it is sent to the
    -- same address again, it must be the same mail, so nothing is folded into it.
    ADD COLUMN maybe_taken boolean NOT NULL DEFAULT false,
    -- When, why and by whom it was last requeued, and whether an instance of notify has counted and logged that.
    ADD COLUMN requeued_at timestamptz NULL,
    ADD COLUMN requeued_for text NULL CHECK (requeued_for IN ('address', 'target', 'command')),
    ADD COLUMN requeued_by text NULL,
    ADD COLUMN requeue_noted boolean NOT NULL DEFAULT true;

UPDATE deliveries SET maybe_taken = true
WHERE state IN ('pending', 'sending', 'failed')
  AND (takeovers > 0 OR last_reply ~ '(connection lost|no answer in time) \(DATA\)$');

CREATE INDEX deliveries_failed ON deliveries (failed_for, petition_id, target_id) WHERE state = 'failed';
CREATE INDEX deliveries_requeue_to_note ON deliveries (delivery_id) WHERE NOT requeue_noted;
