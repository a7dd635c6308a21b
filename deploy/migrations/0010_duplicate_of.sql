-- Written by verify. For a duplicate: the signature that stood when it was decided, to which commands about the duplicate
-- apply. It never changes, which makes such a command idempotent: a replay finds the same signature, in a state to which the
-- command no longer applies. A new lookup could find another signature that the signer has given since.
ALTER TABLE signatures ADD COLUMN duplicate_of uuid NULL;

-- Existing duplicates whose signer still has a signature that stands. The others stay without a value.
UPDATE signatures d SET duplicate_of = s.signature_id
FROM signatures s
WHERE d.state = 'duplicate' AND s.signer_key = d.signer_key AND s.state IN ('pending', 'verified', 'invalidated');

-- An erasure applies to the duplicates too.
CREATE INDEX signatures_duplicate_of ON signatures (duplicate_of) WHERE duplicate_of IS NOT NULL;

-- What ingest reads before it accepts a command: the signer of the named signature, and the state of the one it applies to.
CREATE VIEW command_targets AS
SELECT named.signature_id, named.signer_key, named.petition_id, coalesce(target.state, named.state) AS state
FROM signatures named LEFT JOIN signatures target ON target.signature_id = named.duplicate_of;

-- And whether the command was already carried out.
CREATE VIEW ledger_events AS SELECT event_id FROM ledger;
