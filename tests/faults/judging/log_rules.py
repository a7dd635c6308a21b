"""Which faults explain which lines in the services' logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.contract.topics import SIGNATURES_SUBMITTED
from shared.runtime.failpoints import FailpointRaised
from tests.faults.notes import SACRIFICE

KAFKA, REDIS, POSTGRES, SMTP, CLOCK = "kafka", "redis", "postgres", "smtp", "clock"
ITSELF: Final = "itself"
"""Stands for the service that wrote the line."""
IMPOSSIBLE: Final = "impossible"
IMPOSSIBLE_BEFORE: Final = "impossible-before"
"""In this run or an earlier one in the same world: what was written by hand stays there."""
SACRIFICED: Final = re.compile(re.escape(SACRIFICE) + ".*", re.DOTALL)
"""The id of a sacrificial petition."""
ALWAYS: Final = "always"
"""Expected in every fault run."""
_FAILPOINT_RAISED: Final = rf"(?m)^{re.escape(f'{FailpointRaised.__module__}.{FailpointRaised.__qualname__}')}: "
"""The last line of the traceback of a bug that a fault asked for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A log line is explained when one of `parts` was affected.

    Attributes:
        event: a pattern that the whole event must match.
        parts: one of these must have been affected: services, parts, `ITSELF`, `ALWAYS`.
        why: the reason, for readers.
        cause: a pattern that the whole field ``cause`` must match.
        logger: a pattern that the beginning of the logger's name must match.
        traceback: a pattern that must be found in the line's traceback; None: the line may have no traceback.
        fields: other fields: a value, or a pattern that the whole field must match.
    """

    event: str
    parts: tuple[str, ...]
    why: str
    cause: str = ".*"
    logger: str = ""
    traceback: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    def explains(self, service: str, fields: Mapping[str, Any], touched: frozenset[str]) -> bool:
        """Whether the rule explains a line of `service`."""
        return (
            re.fullmatch(self.event, str(fields.get("event", "")), re.DOTALL) is not None
            and re.fullmatch(self.cause, str(fields.get("cause", ""))) is not None
            and re.match(self.logger, str(fields.get("logger", ""))) is not None
            and self._explains_traceback(fields.get("exception"))
            and all(_says(fields.get(name), wanted) for name, wanted in self.fields.items())
            and any(part == ALWAYS or (service if part == ITSELF else part) in touched for part in self.parts)
        )

    def _explains_traceback(self, traceback: object) -> bool:
        if traceback is None or self.traceback is None:
            return traceback is None and self.traceback is None
        return re.search(self.traceback, str(traceback)) is not None


def _says(value: object, wanted: object) -> bool:
    if isinstance(wanted, re.Pattern):
        return wanted.fullmatch(str(value)) is not None
    return value == wanted


_KAFKA_ERROR: Final = (
    "Kafka.*|.*Node.*|.*Coordinator.*|.*Partition.*|ProducerReplaced|RequestTimedOutError|NetworkException"
    "|BrokerNotAvailable.*|.*Producer.*|CatalogueBehind|CorrelationIdError|StaleMetadata|LeaderNotAvailable.*"
    "|.*NotReady.*|.*Generation.*|.*Rebalance.*|UnknownMemberId.*|OutOfOrderSequenceNumber"
)
_POSTGRES_ERROR: Final = (
    "CannotConnectNow.*|.*Shutdown.*|.*PostgresConnection.*|Connection(DoesNotExist|Failure|Rejection).*|InterfaceError"
    "|InternalClientError|DiskFull.*|TooManyConnections.*|Serialization.*|Deadlock.*|QueryCanceled.*|ReadOnlySQL.*"
    "|InsufficientResources.*|OutOfMemory.*|LockNotAvailable.*|Invalid(Password|Authorization).*"
)
_ANY_CONNECTION: Final = (
    "ConnectionError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError|TimeoutError|OSError|.*ClosedError"
)
"""Logged for any of the parts: the line does not say which."""
_TRANSACTION_ENDED: Final = "ConnectionDoesNotExistError|IdleInTransactionSessionTimeoutError"
"""PostgreSQL ends a transaction in which nothing happens (`shared.postgres`)."""
_REDIS_ERROR: Final = (
    "BusyLoadingError|ResponseError|ReadOnlyError|NoScriptError|OutOfMemoryError|RebuildOvertaken|FencesKeepMoving"
)

RULES: Final = (
    # The harness itself.
    Rule("failpoints_on", (ALWAYS,), "every service of a fault run says so at its start"),
    Rule("failpoint_hit", (ITSELF, "tally", "verify", "notify", "ingest"), "the fault itself"),
    Rule("bug", (ITSELF,), "a fault asked for a bug", traceback=_FAILPOINT_RAISED),
    # Records.
    Rule("dead_letter", ("poison", "megabytes", "redelivery"), "poison was written, or is delivered again"),
    # Impossible states. A petition that a line names must be a sacrificial one.
    Rule("dead_letter|batch_split", (IMPOSSIBLE,), "a record by hand, or about a row that was written by hand"),
    Rule("commands_mismatched|outcome_impossible", (IMPOSSIBLE,), "a signature's row was edited by hand"),
    Rule(
        "(record|batch|petition|snapshot)_unreadable|petition_misplaced|snapshot_foreign",
        (IMPOSSIBLE, IMPOSSIBLE_BEFORE),
        "a record by hand; on a compacted topic it is read at every start",
    ),
    Rule(
        "(audit_drift|ledger_uncounted|tally_damaged|milestone_unproved|(snapshot|count)_taken_back|snapshot_overtaken)",
        (IMPOSSIBLE, IMPOSSIBLE_BEFORE),
        "the count of a sacrificed petition was spoiled and is healed",
        fields={"petition": SACRIFICED},
    ),
    Rule(
        "mail_(withheld|readdressed|forged|taken_over|failed)|milestone_without_petition",
        (IMPOSSIBLE, IMPOSSIBLE_BEFORE),
        "a mail that nobody decided, or whose row was edited by hand",
        fields={"petition_id": SACRIFICED},
    ),
    Rule(
        "mail_(failed|withheld|readdressed|taken_over)",
        ("corrections",),
        "the address of a petition's target is wrong until it is corrected",
        fields={"petition_id": SACRIFICED},
    ),
    Rule("waiting_milestone_refused|deliveries_replaced", (IMPOSSIBLE, IMPOSSIBLE_BEFORE), "rows by hand"),
    Rule("clock_wrong", ("clock-of-one",), "the clock of this process is of another century"),
    Rule(
        "dead_letter", ("contradictions",), "what cannot be applied was written", fields={"reason": "cannot_be_applied"}
    ),
    # Kafka is away, or the group moved.
    Rule("group_lag_unknown", (KAFKA,), "the brokers did not say how far a group is", cause=_KAFKA_ERROR),
    Rule("kafka_away|kafka_away_at_start", (KAFKA,), "the broker was away when the service started"),
    Rule("group_trouble|consumer_stalled", (KAFKA, ITSELF), "the client lost the broker or its place in the group"),
    Rule("producer_replaced|producer_stopped_unsent|producer_not_replaced", (KAFKA,), "the broker was away"),
    Rule(
        "batch_outlived_rebalance", (KAFKA, REDIS, POSTGRES, CLOCK, ITSELF), "a batch was held, or the process frozen"
    ),
    # A batch is held.
    Rule("batch_held", (KAFKA,), "the broker is away", cause=_KAFKA_ERROR),
    Rule("batch_held", (POSTGRES,), "PostgreSQL is away or full", cause=_POSTGRES_ERROR),
    Rule("batch_held", (REDIS, "tally"), "Redis is away, or two tallies count", cause=_REDIS_ERROR),
    Rule("batch_held", (KAFKA, REDIS, POSTGRES, CLOCK, ITSELF), "a connection broke", cause=_ANY_CONNECTION),
    Rule("batch_held", (ITSELF,), "the service was frozen in the middle of a transaction", cause=_TRANSACTION_ENDED),
    Rule("batch_held", (ITSELF,), "just started: the petitions are still being read", cause="CatalogueBehind"),
    Rule("batch_held", ("verify", KAFKA, POSTGRES, CLOCK), "two verifies on one lane", cause="LaneTaken"),
    Rule(
        r"Unclosed AIOKafka(Consumer|Producer).*",
        (KAFKA,),
        "told to stop while the broker was away: closing the client outlasted the drain budget",
        logger="asyncio",
    ),
    # PostgreSQL.
    Rule("postgres_away", (POSTGRES, CLOCK), "PostgreSQL was away when the service started"),
    # Redis.
    Rule("redis_state_rebuilt", (REDIS,), "Redis lost its state or was restarted"),
    Rule("counts_away", (REDIS,), "Redis did not answer a reader"),
    Rule("counts_away", (ALWAYS,), "readers wait 0.2 s, and no longer when the machine is busy", cause="too_slow"),
    Rule("watch_delayed|snapshots_delayed|audit_not_made", (KAFKA,), "the broker is away", cause=_KAFKA_ERROR),
    Rule("watch_delayed|snapshots_delayed|audit_not_made", (POSTGRES,), "PostgreSQL is away", cause=_POSTGRES_ERROR),
    Rule("watch_delayed|snapshots_delayed|audit_not_made", (REDIS, "tally"), "Redis is away", cause=_REDIS_ERROR),
    Rule(
        "watch_delayed|snapshots_delayed|audit_not_made",
        (KAFKA, REDIS, POSTGRES, CLOCK, ITSELF),
        "a connection broke",
        cause=_ANY_CONNECTION,
    ),
    Rule(
        "snapshot_overtaken", ("tally", KAFKA, CLOCK), "a tally that had lost its partitions was late, and is answered"
    ),
    # Clocks.
    Rule(
        "dead_letter",
        (CLOCK,),
        "ingest started with a wrong clock, and took the first acknowledgement to learn it",
        fields={"reason": "out_of_range", "topic": SIGNATURES_SUBMITTED.name},
    ),
    Rule("clock_wrong", (CLOCK,), "ingest found its clock wrong, and accepts nothing meanwhile"),
    # Mail.
    Rule("sender_held", (SMTP, POSTGRES, CLOCK, ITSELF), "the SMTP server or PostgreSQL is away"),
    Rule("lease_not_given_back", (POSTGRES, ITSELF), "PostgreSQL is away"),
    Rule(
        "mail_taken_over", (SMTP, POSTGRES, CLOCK, ITSELF), "a sender was killed, frozen or held up with a mail in hand"
    ),
    Rule("mail_outlived_stop", (SMTP, POSTGRES, ITSELF), "stopped while the SMTP server or PostgreSQL did not answer"),
    Rule("mail_failed", (SMTP,), "the SMTP server refused it for good"),
    # Libraries.
    Rule(
        ".*",
        (KAFKA, CLOCK, ITSELF, "partitions", "redelivery"),
        "aiokafka's own words for a broker, or a place in the group, that is lost; it goes on by itself",
        logger="aiokafka",
    ),
    Rule(
        "Failed to restore the pool connection floor; retrying",
        (POSTGRES, CLOCK),
        "asyncpg's pool, which cannot replace an idle connection while PostgreSQL is away; it logs the whole traceback",
        logger=r"asyncpg\.pool",
        traceback=f"({_POSTGRES_ERROR}|{_ANY_CONNECTION})(:|$)",
    ),
    Rule(
        r"socket\.send\(\) raised exception\.",
        (KAFKA, REDIS, POSTGRES, SMTP, ITSELF),
        "asyncio writes on a connection that was cut",
        logger="asyncio",
    ),
    Rule(
        r"Cancel \d+ running task\(s\), timeout graceful shutdown exceeded",
        (KAFKA, REDIS, POSTGRES, ITSELF),
        "stopped while a request waited for something that is away",
        logger="uvicorn",
    ),
)

_TEXTS: Final[tuple[tuple[str, str], ...]] = ()
"""Expected lines that are not JSON, as patterns, with the reason."""


def explained(service: str, fields: Mapping[str, Any], touched: frozenset[str]) -> bool:
    """Whether a service's line is expected after faults that affected `touched`."""
    return any(rule.explains(service, fields, touched) for rule in RULES)


def explained_text(text: str) -> bool:
    """Whether a line that is not JSON is an expected one."""
    return any(re.fullmatch(pattern, text) for pattern, _ in _TEXTS)
