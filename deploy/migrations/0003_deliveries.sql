-- Written by notify.

-- One row per milestone and target. What the mail says of petition and target is kept as it was when the milestone came,
-- so a mail that is sent again is the same mail.
--
-- A row's way:
--   pending   chosen_at empty: collects for due_at; a later milestone of the same petition and target may outgrow it
--   folded    another row's mail names this milestone too (folded_into); what became of it is what became of that row
--   pending   chosen_at set: it is a mail. Nothing is folded into it any more; to be sent at due_at
--   sending   a sender holds it until leased_until; past that, whoever comes next sends it, under the same Message-ID
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
    -- How often a sender let its lease run out: it crashed or hung, perhaps because of this mail.
    takeovers         integer     NOT NULL DEFAULT 0,
    -- When a server first put this mail off. The time to give up counts from here: hours in which the SMTP server could
    -- not be reached are not the target's.
    deferred_since    timestamptz NULL,
    -- The server's last words. They often repeat the address, so they stay here and never reach a log.
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

-- One mail at a time to one target about one petition: while it is under way or put off, what comes after is collected.
-- Two senders that choose at the same moment meet here.
CREATE UNIQUE INDEX deliveries_one_mail_at_a_time ON deliveries (petition_id, target_id)
    WHERE chosen_at IS NOT NULL AND state IN ('pending', 'sending');

-- Milestones of petitions that notify has not heard of. They become deliveries when it has, and stay here until then.
CREATE TABLE milestones_waiting (
    petition_id text        NOT NULL,
    threshold   bigint      NOT NULL,
    count       bigint      NOT NULL,
    revision    bigint      NOT NULL,
    reached_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (petition_id, threshold)
);
