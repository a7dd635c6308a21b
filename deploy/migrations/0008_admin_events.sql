-- Written by ingest: who changed what, by the name of their token. No personal data: names of fields, not their values.
CREATE TABLE admin_events (
    event_id     uuid        NOT NULL PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    actor        text        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('admin', 'partner')),
    call         text        NOT NULL,
    petition_id  text        NOT NULL,
    signature_id uuid        NULL,
    changed      text[]      NOT NULL DEFAULT '{}',
    etag_before  text        NULL,
    etag_after   text        NULL,
    -- For a change of the petition itself: its version, and the version on which it is based (0: unknown).
    version      bigint      NULL,
    follows      bigint      NULL,
    request_id   text        NULL,
    -- asked      written; whether Kafka has it is unknown. Final if the process died in between.
    -- done       Kafka has it
    -- failed     Kafka does not have it, and never will
    -- overtaken  another change of the petition came first; if this one's record still arrives, readers skip it
    outcome      text        NOT NULL DEFAULT 'asked' CHECK (outcome IN ('asked', 'done', 'failed', 'overtaken')),
    finished_at  timestamptz NULL,
    CHECK ((version IS NULL) = (follows IS NULL)),
    CHECK (version > follows AND follows >= 0),
    CHECK ((outcome = 'asked') = (finished_at IS NULL))
);

-- Decides between two concurrent changes of a petition: only one change can follow a version.
CREATE UNIQUE INDEX admin_events_follows ON admin_events (petition_id, follows) WHERE follows IS NOT NULL;
CREATE UNIQUE INDEX admin_events_version ON admin_events (petition_id, version) WHERE version IS NOT NULL;

CREATE INDEX admin_events_at ON admin_events (at);
CREATE INDEX admin_events_petition ON admin_events (petition_id, at);
CREATE INDEX admin_events_asked ON admin_events (at) WHERE outcome = 'asked';
