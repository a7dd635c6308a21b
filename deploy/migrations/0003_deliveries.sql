-- Written by notify.

-- One row per milestone and target. What the mail says of petition and target is stored as of the milestone's arrival, so a
-- mail that is sent again is the same mail.
--
-- The states of a row:
--   pending   chosen_at empty: collects for due_at; a later milestone of the same petition and target may outgrow it
--   folded    another row's mail names this milestone too (folded_into), and that row has its outcome
--   pending   chosen_at set: it is a mail, due at due_at. Nothing is folded into it any more
--   sending   a sender holds the lease until leased_until; after that the next sender sends it, under the same Message-ID
--   sent, failed
CREATE TABLE deliveries (
    delivery_id       uuid        NOT NULL PRIMARY KEY,
    petition_id       text        NOT NULL,
    threshold         bigint      NOT NULL,
    target_id         text        NOT NULL,
    petition_title    text        NOT NULL,
    organisation_name text        NOT NULL,
    target_name       text        NOT NULL,
    target_kind       text        NOT NULL CHECK (target_kind IN ('person', 'body')),
    email             text        NOT NULL,
    count             bigint      NOT NULL,
    reached_at        timestamptz NOT NULL,
    state             text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'sent', 'folded', 'failed')),
    due_at            timestamptz NOT NULL,
    chosen_at         timestamptz NULL,
    folded_into       uuid        NULL REFERENCES deliveries (delivery_id),
    lease             uuid        NULL,
    leased_until      timestamptz NULL,
    attempts          integer     NOT NULL DEFAULT 0,
    -- How often a lease expired: the sender crashed or hung, perhaps because of this mail.
    takeovers         integer     NOT NULL DEFAULT 0,
    -- When a server first deferred this mail. The time limit for giving up counts from here, so that it does not include
    -- hours in which the SMTP server could not be reached.
    deferred_since    timestamptz NULL,
    -- The server's last reply. It often repeats the address, so it stays here and is never logged.
    last_reply        text        NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz NULL,
    UNIQUE (petition_id, threshold, target_id),
    CHECK ((state = 'folded') = (folded_into IS NOT NULL)),
    CHECK ((state = 'sending') = (lease IS NOT NULL AND leased_until IS NOT NULL)),
    CHECK (state NOT IN ('sending', 'sent', 'failed') OR chosen_at IS NOT NULL)
);

CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_open ON deliveries (petition_id, target_id) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_folded ON deliveries (folded_into) WHERE folded_into IS NOT NULL;

-- At most one mail at a time to one target about one petition: while it is being sent or deferred, later milestones collect.
-- The index decides between two senders that choose at the same moment.
CREATE UNIQUE INDEX deliveries_one_mail_at_a_time ON deliveries (petition_id, target_id)
    WHERE chosen_at IS NOT NULL AND state IN ('pending', 'sending');

-- Milestones of petitions that notify does not know yet. They become deliveries once it does.
CREATE TABLE milestones_waiting (
    petition_id text        NOT NULL,
    threshold   bigint      NOT NULL,
    count       bigint      NOT NULL,
    revision    bigint      NOT NULL,
    reached_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (petition_id, threshold)
);
