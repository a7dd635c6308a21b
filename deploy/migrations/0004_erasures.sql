-- Written by verify. An erased signature keeps its row: its id makes a repeated request a replay, and its state and country
-- are what the count and a later withdrawal need. Its signer_key is a random one that is nobody's.
ALTER TABLE signatures ADD COLUMN erased_at timestamptz NULL;

-- Who erased what, and why, in operators' words. Nothing here leads to the signer: the old signer key is not kept.
CREATE TABLE erasures (
    signature_id uuid        NOT NULL,
    petition_id  text        NOT NULL,
    actor        text        NOT NULL,
    reason       text        NOT NULL,
    requested_at timestamptz NOT NULL,
    erased_at    timestamptz NOT NULL,
    -- Twice only if somebody put the row back by hand meanwhile: then it is a second erasure, not a collision.
    PRIMARY KEY (signature_id, erased_at)
);

CREATE OR REPLACE VIEW outcomes AS
SELECT signature_id, signer_key, petition_id, state, reason, decided_at, erased_at FROM signatures;
