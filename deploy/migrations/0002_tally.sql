-- Written by tally.

-- A milestone is reached once, ever: also after a loss of Redis, and also if the count fell below it and rose again.
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

-- The Redis in which the counts of a partition of signatures.verified were last known to be right: run_id/incarnation.
CREATE TABLE redis_witness (
    partition integer NOT NULL PRIMARY KEY,
    identity  text    NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now()
);
