"""The audit log of administrators and partners: a row in ``admin_events`` and a log line for every call.

The row is written before anything is published, with the outcome ``asked``, and finished afterwards. So every record on a
topic that comes from a call has a row, and a row that stays ``asked`` shows where a process died. Names of fields are stored,
never their values.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from services.ingest.access.access import Caller
from services.ingest.metrics import IngestMetrics
from services.ingest.problems import problem
from shared.contract.bounds.texts import is_slug
from shared.postgres import Connection, Database
from shared.runtime.failures import is_transient
from shared.web.problems import Problem

log = structlog.get_logger(__name__)

_ANSWER_SECONDS: Final = 5.0
_LOST_AFTER_SECONDS: Final = 20.0
"""A call ends within 15 seconds; if its row is unfinished after this time, its process has died or was stopped."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")

AnyConnection = Connection | PoolConnectionProxy
T = TypeVar("T")

_LAST_CHANGE: Final = """
SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now, event_id, version, outcome
FROM (SELECT) AS always LEFT JOIN LATERAL (
    SELECT event_id, version, outcome FROM admin_events
    WHERE petition_id = $1 AND version IS NOT NULL ORDER BY version DESC LIMIT 1) AS last ON true
"""

_UNFINISHED: Final = """
SELECT event_id, petition_id, version FROM admin_events
WHERE outcome = 'asked' AND version IS NOT NULL AND at < now() - make_interval(secs => $1)
ORDER BY at LIMIT 500
"""


@dataclass(frozen=True, slots=True)
class AdminEvent:
    """One call."""

    event_id: UUID
    caller: Caller
    call: str
    petition_id: str
    signature_id: UUID | None = None
    request_id: str | None = None
    changed: Sequence[str] = ()
    """Names of fields."""
    etag_before: str | None = None
    etag_after: str | None = None

    @classmethod
    def of(
        cls, headers: Mapping[bytes, bytes], caller: Caller, call: str, petition_id: str, **about: Any
    ) -> AdminEvent:
        """A new event about a request with these headers."""
        return cls(uuid4(), caller, call, petition_id, request_id=request_id_of(headers), **about)


@dataclass(frozen=True, slots=True)
class LastChange:
    """The newest change of a petition that is recorded."""

    event_id: UUID
    version: int
    outcome: str


def request_id_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The request's ``X-Request-ID`` from the client or a proxy; None if it has none that can be stored unchanged."""
    value = headers.get(b"x-request-id", b"")
    return value.decode("ascii") if _REQUEST_ID.match(value) else None


class AdminEvents:
    """All SQL about `admin_events`, and the log line and metric of an event.

    Raises:
        Problem: 503, from every method that uses PostgreSQL: it is away. Nothing was changed.
    """

    def __init__(self, database: Database, metrics: IngestMetrics) -> None:
        self._database, self._metrics = database, metrics

    # -------------------------------------------------------------------------------------------- changes of petitions

    async def last_change(self, petition_id: str) -> tuple[LastChange | None, int]:
        """The newest change of a petition, and PostgreSQL's time in milliseconds since 1970."""
        row = await self._ask(lambda connection: connection.fetchrow(_LAST_CHANGE, petition_id))
        assert row is not None
        last = LastChange(row["event_id"], row["version"], row["outcome"]) if row["event_id"] else None
        return last, row["now"]

    async def ask_change(self, event: AdminEvent, *, version: int, last: LastChange | None) -> bool:
        """Write the row of a change that follows `last`; if `last` is unfinished, it becomes ``overtaken``.

        Returns:
            Whether the row was written. It is not if another change came first, or `last` was finished meanwhile.
        """

        async def write(connection: AnyConnection) -> bool:
            async with connection.transaction():
                unfinished = last is not None and last.outcome == "asked"
                if last is not None and unfinished and not await _finish(connection, last.event_id, "overtaken"):
                    return False
                return await _insert(connection, event, version=version, follows=0 if last is None else last.version)

        return await self._ask(write)

    async def confirm(self, event_id: UUID) -> None:
        """Mark a change as done that its process did not finish and whose record is on the topic."""
        await self._ask(lambda connection: _finish(connection, event_id, "done"))

    async def unfinished_changes(self) -> list[tuple[UUID, str, int]]:
        """Event, petition and version of changes that their process did not finish; at most 500, the oldest first."""
        rows = await self._ask(lambda connection: connection.fetch(_UNFINISHED, _LOST_AFTER_SECONDS))
        return [(row["event_id"], row["petition_id"], row["version"]) for row in rows]

    # ------------------------------------------------------------------------------------------------------- all calls

    async def ask(self, event: AdminEvent) -> None:
        """Write the row of any other call."""
        await self._ask(lambda connection: _insert(connection, event))

    async def finish(self, event: AdminEvent, outcome: str) -> str:
        """Record the outcome of a call, and log it. Returns the final outcome: another process may have recorded one first."""

        async def write(connection: AnyConnection) -> str:
            if await _finish(connection, event.event_id, outcome):
                return outcome
            found = await connection.fetchval("SELECT outcome FROM admin_events WHERE event_id = $1", event.event_id)
            return str(found or outcome)  # the row may have been deleted

        holds = await self._ask(write)
        self.say(event, holds)
        return holds

    def say(self, event: AdminEvent, outcome: str) -> None:
        """Write the log line, and count the call."""
        self._metrics.admin_events.labels(call=event.call, outcome=outcome).inc()
        log.info(
            "admin_event",
            event_id=str(event.event_id),
            actor=event.caller.name,
            role=event.caller.role.value,
            call=event.call,
            # The id in the request may be any text.
            petition_id=event.petition_id if is_slug(event.petition_id) else None,
            signature_id=None if event.signature_id is None else str(event.signature_id),
            changed=list(event.changed),
            etag_before=event.etag_before,
            etag_after=event.etag_after,
            request_id=event.request_id,
            outcome=outcome,
        )

    def refusal(self, name: str, event: AdminEvent) -> Problem:
        """The answer to a known caller without permission.

        It is logged, but gets no row: otherwise the owner of any key could fill the table.
        """
        self.say(event, "refused")
        return problem(name)

    async def _ask(self, work: Callable[[AnyConnection], Awaitable[T]]) -> T:
        """Run `work` with a connection, and return its result.

        If PostgreSQL hangs, its driver hangs even when cancelled, so this does not wait for the end of a cancelled `work`.
        """
        asked = asyncio.ensure_future(self._with_connection(work))
        done, _ = await asyncio.wait({asked}, timeout=_ANSWER_SECONDS)
        if not done:
            asked.cancel()
            asked.add_done_callback(_note)
            raise problem("record_away")
        try:
            return asked.result()
        except asyncpg.UndefinedTableError as error:
            log.error("admin_events_missing", do="run `groundswell migrate`")
            raise problem("record_away") from error
        except Exception as error:
            # InternalClientError: the connection was closing when it was used, which is as good as a lost connection.
            if not is_transient(error) and not isinstance(error, asyncpg.InternalClientError):
                raise
            raise problem("record_away") from error

    async def _with_connection(self, work: Callable[[AnyConnection], Awaitable[T]]) -> T:
        async with self._database.pool.acquire(timeout=_ANSWER_SECONDS) as connection:
            return await work(connection)


def _note(asked: asyncio.Future[Any]) -> None:
    """Retrieve the exception of an abandoned future; its caller has been answered already."""
    if not asked.cancelled():
        asked.exception()


async def _insert(
    connection: AnyConnection, event: AdminEvent, *, version: int | None = None, follows: int | None = None
) -> bool:
    row = await connection.fetchval(
        "INSERT INTO admin_events (event_id, actor, role, call, petition_id, signature_id, changed, etag_before, etag_after,"
        " version, follows, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        " ON CONFLICT DO NOTHING RETURNING event_id",
        event.event_id,
        event.caller.name,
        event.caller.role.value,
        event.call,
        event.petition_id,
        event.signature_id,
        list(event.changed),
        event.etag_before,
        event.etag_after,
        version,
        follows,
        event.request_id,
    )
    return row is not None


async def _finish(connection: AnyConnection, event_id: UUID, outcome: str) -> bool:
    """Finish an event. Returns whether it was unfinished until now."""
    row = await connection.fetchval(
        "UPDATE admin_events SET outcome = $2, finished_at = now() WHERE event_id = $1 AND outcome = 'asked'"
        " RETURNING event_id",
        event_id,
        outcome,
    )
    return row is not None
