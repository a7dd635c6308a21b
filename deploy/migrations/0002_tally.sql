-- Written by tally.

-- Milestones are reached once, ever: also after Redis was lost, also when the count fell below and rose again.
CREATE TABLE milestones (
    petition_id  text        NOT NULL,
    threshold    bigint      NOT NULL,
    count        bigint      NOT NULL,
    revision     bigint      NOT NULL,
    reached_at   timestamptz NOT NULL,
    announced_at timestamptz NULL,
    PRIMARY KEY (petition_id, threshold)
);

CREATE INDEX milestones_unannounced ON milestones (petition_id) WHERE announced_at IS NULL;

-- Which Redis the counts of a partition of signatures.verified were last known to be right in: run_id/incarnation.
CREATE TABLE redis_witness (
    partition integer NOT NULL PRIMARY KEY,
    identity  text    NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now()
);
