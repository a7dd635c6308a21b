-- Written by verify. One row per accepted submission: the source of truth for the states of signatures.
--
-- signer_key and signature_id are 16 bytes (uuid), and the unique index on signers holds only rows that could make a later
-- signature a duplicate, so it stays small and hot. The signer key's hash includes the petition, so the key alone suffices.
CREATE TABLE signatures (
    signature_id uuid        NOT NULL PRIMARY KEY,
    signer_key   uuid        NOT NULL,
    petition_id  text        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('pending', 'verified', 'duplicate', 'rejected', 'withdrawn', 'invalidated')),
    reason       text        NULL,
    country      text        NOT NULL,
    submitted_at timestamptz NOT NULL,
    decided_at   timestamptz NOT NULL DEFAULT now()
);

-- Makes a second signature of one signer a duplicate, whichever process inserts it. A signer whose signature was invalidated
-- cannot sign again; one who withdrew can.
CREATE UNIQUE INDEX signatures_one_per_signer ON signatures (signer_key) WHERE state IN ('pending', 'verified', 'invalidated');

-- The append-only list of all changes of counts. The primary key (lane, position) fences a verify that no longer owns its
-- lane: if two instances write to one lane, the later one's whole batch rolls back.
CREATE TABLE ledger (
    lane         integer     NOT NULL,
    position     bigint      NOT NULL,
    event_id     uuid        NOT NULL,
    petition_id  text        NOT NULL,
    signature_id uuid        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('verified', 'withdrawn', 'invalidated')),
    delta        smallint    NOT NULL CHECK (delta IN (1, -1)),
    country      text        NOT NULL,
    signed_at    timestamptz NOT NULL,
    occurred_at  timestamptz NOT NULL,
    PRIMARY KEY (lane, position)
);

-- A command is in the ledger at most once; this index finds replays.
CREATE UNIQUE INDEX ledger_event ON ledger (event_id);

-- Rebuild and audit read one petition at a time, lane by lane.
CREATE INDEX ledger_petition ON ledger (petition_id, lane, position);

-- The part of an outcome that ingest may read.
CREATE VIEW outcomes AS
SELECT signature_id, signer_key, petition_id, state, reason, decided_at FROM signatures;
