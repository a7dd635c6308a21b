-- Written by notify. One row per milestone and target; a mail may answer several rows (folded_into).
CREATE TABLE deliveries (
    delivery_id   uuid        NOT NULL PRIMARY KEY,
    petition_id   text        NOT NULL,
    threshold     bigint      NOT NULL,
    target_id     text        NOT NULL,
    target_name   text        NOT NULL,
    email         text        NOT NULL,
    count         bigint      NOT NULL,
    reached_at    timestamptz NOT NULL,
    state         text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'sent', 'folded', 'failed')),
    folded_into   uuid        NULL REFERENCES deliveries (delivery_id),
    attempts      integer     NOT NULL DEFAULT 0,
    due_at        timestamptz NOT NULL,
    leased_until  timestamptz NULL,
    last_reply    text        NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz NULL,
    UNIQUE (petition_id, threshold, target_id)
);

CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_open ON deliveries (petition_id, target_id) WHERE state IN ('pending', 'sending');
