-- Written by verify. An erased signature keeps its row: its id makes a repeated request a replay, and the count and a later
-- withdrawal need its state and country. Its signer_key is replaced by a random one.
ALTER TABLE signatures ADD COLUMN erased_at timestamptz NULL;

-- Who erased what and why, as written by operators. Nothing here links to the signer: the old signer key is not kept.
CREATE TABLE erasures (
    signature_id uuid        NOT NULL,
    petition_id  text        NOT NULL,
    actor        text        NOT NULL,
    reason       text        NOT NULL,
    requested_at timestamptz NOT NULL,
    erased_at    timestamptz NOT NULL,
    -- Twice only if the row was restored manually in between: then it is a second erasure, not a collision.
    PRIMARY KEY (signature_id, erased_at)
);

CREATE OR REPLACE VIEW outcomes AS
SELECT signature_id, signer_key, petition_id, state, reason, decided_at, erased_at FROM signatures;
