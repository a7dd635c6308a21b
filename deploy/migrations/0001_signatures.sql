-- Written by verify. One row per accepted submission: the one truth about who stands.
--
-- signer_key and signature_id are 16 bytes (uuid), and the unique index on signers holds only rows that stand or wait,
-- so it stays small and hot. petition_id is part of the signer key's hash, so the key alone is unique per petition.
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

-- What makes a second signature of one signer a duplicate, whoever inserts it and whenever. A signer whose signature was
-- struck out by a moderator cannot sign again; one who withdrew can.
CREATE UNIQUE INDEX signatures_one_per_signer ON signatures (signer_key) WHERE state IN ('pending', 'verified', 'invalidated');

-- The append-only list of everything that changed a count. (lane, position) as the primary key is what fences a verify
-- that no longer owns its lane: of two that both think they own it, the later one's whole batch rolls back.
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

-- A command is in the ledger at most once; replays are found by it.
CREATE UNIQUE INDEX ledger_event ON ledger (event_id);

-- Rebuild and audit read one petition at a time, lane by lane.
CREATE INDEX ledger_petition ON ledger (petition_id, lane, position);

-- What ingest may know of an outcome: read only.
CREATE VIEW outcomes AS
SELECT signature_id, signer_key, petition_id, state, reason, decided_at FROM signatures;
