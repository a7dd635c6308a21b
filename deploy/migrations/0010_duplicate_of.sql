-- Written by verify. Of a duplicate: the signature that stood when it was decided, and that commands about it are about.
-- It never changes. That is what makes such a command safe to repeat: the signature of before is found again, in a state to
-- which the command no longer applies. Looked up anew, it could be another one that the signer has given since.
ALTER TABLE signatures ADD COLUMN duplicate_of uuid NULL;

-- Duplicates of before, whose signer still has a signature that stands. The others stay without one.
UPDATE signatures d SET duplicate_of = s.signature_id
FROM signatures s
WHERE d.state = 'duplicate' AND s.signer_key = d.signer_key AND s.state IN ('pending', 'verified', 'invalidated');

-- Who is erased, is erased in the duplicates too.
CREATE INDEX signatures_duplicate_of ON signatures (duplicate_of) WHERE duplicate_of IS NOT NULL;

-- What ingest asks before it takes a command: whose signature it names, and the state of the one that it is about.
CREATE VIEW command_targets AS
SELECT named.signature_id, named.signer_key, named.petition_id, coalesce(target.state, named.state) AS state
FROM signatures named LEFT JOIN signatures target ON target.signature_id = named.duplicate_of;

-- And whether it was carried out before.
CREATE VIEW ledger_events AS SELECT event_id FROM ledger;
