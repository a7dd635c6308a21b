"""The state of a run at its end, observed from outside. `observers` fills it in, `invariants` judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.breaking.smtp_sink import Mail
from tests.faults.notes import Place, Planted, Spoiled
from tests.faults.sending.surge import Accepted
from tests.faults.watching.seen import Seen
from tests.faults.watching.stores import Counted, Lane, Stored


class Shown(NamedTuple):
    """A count as the public API or a stream showed it."""

    revision: int
    number: int
    """The count."""
    countries: int
    """The sum of the break-down by country."""
    minutes: int
    """The sum of the break-down by minute, the earlier ones included."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Shown:
        """Read from the JSON of the API, the stream or a snapshot, which have the same fields."""
        countries, minutes = sum(body["countries"].values()), body["earlier"] + sum(body["minutes"].values())
        return cls(body["revision"], body["count"], countries, minutes)


@dataclass(slots=True)
class Watched:
    """The counts that readers of the busiest petition saw during the run.

    Attributes:
        streamed: every event of its stream, over all reconnections of one subscriber.
        asked: the API's answers that were not stale, if they differ from the previous one.
        connections: how often the subscriber had to connect.
    """

    streamed: list[Shown] = field(default_factory=list)
    asked: list[Shown] = field(default_factory=list)
    connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The end of a run.

    Attributes:
        seen: the topics.
        stored: PostgreSQL.
        lanes_before: the ledger's lanes when the run began.
        strange_facts: redelivered facts of earlier runs that differ from the ledger.
        counted: Redis, and the audit.
        shown: tally's public answer for each petition, at the end.
        watched: the busiest petition's public count during the run.
        mails: about these petitions, whose content the SMTP server received, in order.
        planted: records that must become dead letters, by their place.
        planted_before: those of earlier runs, which may be redelivered.
        spoiled: what was written by hand about sacrificial petitions.
        direct: signatures that faults wrote to the topic themselves, by id.
        not_ready: services that are not ready, and why.
        leaks: personal data or secrets in wrong places, except those on topics.
    """

    seen: Seen
    stored: Stored
    lanes_before: Mapping[int, Lane]
    strange_facts: Sequence[tuple[int, int]]
    counted: Counted
    shown: Mapping[str, Shown]
    watched: Watched
    mails: Sequence[Mail]
    planted: Mapping[Place, Planted]
    planted_before: Mapping[Place, Planted]
    direct: Mapping[str, Accepted]
    spoiled: Spoiled = field(default_factory=Spoiled)
    not_ready: Sequence[str]
    leaks: Sequence[str]
