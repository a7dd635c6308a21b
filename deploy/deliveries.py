"""`groundswell deliveries`: what went to whom, and making failed deliveries due again. Reads and writes POSTGRES_URL."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg
import typer

from deploy.operate import console, use_running_stack
from services.notify.mail.refusals import Cause
from services.notify.outbox import requeue
from services.notify.outbox.listing import LastWords, Listed, State, listed
from services.notify.outbox.requeue import Left
from shared.runtime.settings import DatabaseSettings, SettingsError, load
from shared.runtime.unreachable import why

_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 60
_TRIES: Final = 5
"""Of one petition, when senders choose mails to the same targets at the same moments."""
_SHOWN: Final = 20
"""Deliveries that are named one by one to a person; JSON has all."""

_NOT_BY_COMMAND: Final = {
    Cause.TARGET: "their petition does not address the target any more; if it does again (PUT), they go out by themselves",
    Cause.WITHHELD: "they are no milestones that tally decided, or nobody knows whether a mail has named them",
    Cause.MOVED: "their target goes by another id now, and has deliveries of its own",
}


class Refused(Exception):
    """The command was not carried out. The message says why."""


async def show(*, petition_id: str | None, state: State | None, limit: int, as_json: bool) -> int:
    """List deliveries, those that changed last first. Returns the exit code: 1 when PostgreSQL cannot be asked."""
    try:
        async with _connected() as connection:
            found = await listed(connection, petition_id=petition_id, state=state, limit=limit + 1)
    except Refused as refused:
        return _say_refused(refused, as_json=as_json)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        typer.echo(json.dumps({"ok": True, "deliveries": [_as_json(one) for one in shown], "more": more}))
        return 0
    for one in shown:
        typer.echo(_as_text(one))
    if not shown:
        console.print("No deliveries like this.")
    if more:
        console.print(f"There are more than {limit}; name a petition or a state, or raise --limit.")
    return 0


async def retry(
    *, petition_id: str | None, delivery: UUID | None, all_failed: bool, actor: str | None, as_json: bool
) -> int:
    """Make failed deliveries due again. Returns the exit code: 1 when it is refused, or PostgreSQL cannot be asked.

    Raises:
        typer.BadParameter: not exactly one of petition, delivery and all is named.
    """
    if sum([petition_id is not None, delivery is not None, all_failed]) != 1:
        raise typer.BadParameter("name one of --petition, --delivery and --all-failed")
    again: list[UUID] = []
    left: list[Left] = []
    try:
        async with _connected() as connection:
            petitions = await _petitions(connection, petition_id, delivery)
            for one in petitions:
                done = await _retry(connection, one, delivery, actor)
                again += done.again
                left += done.left
            others = Counter[Cause]() if delivery else await _others(connection, petitions)
    except Refused as refused:
        return _say_refused(refused, as_json=as_json)
    if delivery is not None and left:
        return _say_refused(Refused(f"{delivery}: {left[0].why}"), as_json=as_json)
    if as_json:
        body = {
            "ok": True,
            "requeued": len(again),
            "deliveries": [str(one) for one in again],
            "left": [{"delivery_id": str(one.delivery_id), "why": one.why} for one in left],
            "not_by_command": {cause.value: number for cause, number in others.items()},
        }
        typer.echo(json.dumps(body))
    else:
        _say(again, left, others, petition_id)
    return 0


# ------------------------------------------------------------------------------------------------------------ the store


@asynccontextmanager
async def _connected() -> AsyncIterator[asyncpg.Connection]:
    """A connection to POSTGRES_URL, or to that of the running local stack.

    Raises:
        Refused: PostgreSQL is away, or its tables are those of another version.
        typer.BadParameter: POSTGRES_URL is wrong, or not there.
    """
    use_running_stack()
    if not os.environ.get("POSTGRES_URL") and "POSTGRES_URL_FILE" not in os.environ:
        raise typer.BadParameter(
            "POSTGRES_URL is not set, and no local stack runs: set it, or start one with `groundswell up`"
        )
    try:
        url = load(DatabaseSettings).postgres_url.get_secret_value()
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    connection = None
    try:
        connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS, command_timeout=_ANSWER_SECONDS)
        yield connection
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        raise Refused("The tables are those of another version: run `groundswell migrate`") from None
    except (
        OSError,  # also TimeoutError
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.OperatorInterventionError,
        asyncpg.DeadlockDetectedError,
    ) as error:
        raise Refused(f"PostgreSQL is away: {why(error)}. Run the same command again: what is due stays due") from None
    finally:
        if connection is not None:
            await connection.close(timeout=_CONNECT_SECONDS)


async def _petitions(connection: asyncpg.Connection, petition_id: str | None, delivery: UUID | None) -> list[str]:
    """The petitions that are concerned.

    Raises:
        Refused: there is no such delivery, or it may not be retried; or the petition has no deliveries.
    """
    if delivery is not None:
        found = await listed(connection, delivery=delivery, limit=1)
        if not found:
            raise Refused(f"There is no delivery {delivery}; `groundswell deliveries list` shows those that there are")
        if (reason := _why_not(found[0])) is not None:
            raise Refused(f"{delivery} {reason}")
        return [await connection.fetchval("SELECT petition_id FROM deliveries WHERE delivery_id = $1", delivery)]
    if petition_id is not None:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM deliveries WHERE petition_id = $1)", petition_id):
            raise Refused(f"{petition_id} has no deliveries: no such petition, or it has reached no milestone yet")
        return [petition_id]
    rows = await connection.fetch(
        "SELECT DISTINCT petition_id FROM deliveries WHERE state = 'failed' ORDER BY petition_id"
    )
    return [row["petition_id"] for row in rows]


def _why_not(one: Listed) -> str | None:
    """Why this delivery is not retried, as the end of a sentence; None if it may be."""
    match one.state:
        case State.SENT:
            return f"was sent at {_moment(one.finished_at)}: a second mail is not sent"
        case State.FOLDED:
            return f"is named by the mail {one.named_by}, and ends as that does: retry that one if it failed"
        case State.SENDING:
            return "is being sent at this moment"
        case State.PENDING:
            return f"has not failed: it is due at {_moment(one.due_at)}"
        case State.FAILED if one.failed_for in {cause.value for cause in _NOT_BY_COMMAND}:
            return f"is not retried; {_NOT_BY_COMMAND[Cause(one.failed_for)].replace('they ', 'such deliveries ', 1)}"
    return None


async def _retry(
    connection: asyncpg.Connection, petition_id: str, delivery: UUID | None, actor: str | None
) -> requeue.Retried:
    """Make due what failed of one petition, in one transaction.

    Raises:
        Refused: senders chose mails to the same targets each time it was tried.
    """
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                return await requeue.retry(connection, petition_id, delivery=delivery, by=actor)
        except asyncpg.UniqueViolationError:
            continue
    raise Refused(f"notify is choosing mails to the targets of {petition_id}; run the same command again")


async def _others(connection: asyncpg.Connection, petitions: list[str]) -> Counter[Cause]:
    """How many failed deliveries of these petitions no command makes due, by cause."""
    rows = await connection.fetch(
        "SELECT failed_for, count(*) AS number FROM deliveries WHERE petition_id = ANY($1::text[]) AND state = 'failed'"
        " AND failed_for = ANY($2::text[]) GROUP BY failed_for",
        petitions,
        [cause.value for cause in _NOT_BY_COMMAND],
    )
    return Counter({Cause(row["failed_for"]): row["number"] for row in rows})


# -------------------------------------------------------------------------------------------------------- what is said


def _say_refused(refused: Refused, *, as_json: bool) -> int:
    if as_json:
        typer.echo(json.dumps({"ok": False, "error": str(refused)}))
    else:
        console.print(str(refused), style="red", highlight=False, markup=False, soft_wrap=True)
    return 1


def _say(again: list[UUID], left: list[Left], others: Counter[Cause], petition_id: str | None) -> None:
    if again:
        watch = "" if petition_id is None else f" --petition {petition_id}"
        typer.echo(
            f"{_deliveries(len(again))} due again; those to one target share a mail. notify sends them within seconds."
            f" Watch: groundswell deliveries list{watch}, and the metric groundswell_notify_failed_deliveries"
        )
    else:
        typer.echo("Nothing is due again: no delivery failed that a command can retry.")
    for one in left[:_SHOWN]:
        console.print(f"Left: {one.delivery_id}: {one.why}", style="yellow", markup=False, soft_wrap=True)
    if len(left) > _SHOWN:
        console.print(f"Left as well: {len(left) - _SHOWN} more; --json names them", style="yellow")
    for cause, number in others.items():
        console.print(f"Left: {number}, for {_NOT_BY_COMMAND[cause]}", style="yellow", markup=False, soft_wrap=True)


def _deliveries(number: int) -> str:
    return "1 delivery is" if number == 1 else f"{number:,} deliveries are"


def _moment(value: datetime | None) -> str:
    return "an unknown time" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _visible(email: str) -> str:
    """An address with all that is in it: blanks, and letters that look like others, are shown by their numbers."""
    return email if email.isascii() and email.isprintable() and " " not in email else json.dumps(email)


def _as_text(one: Listed) -> str:
    state = one.state if one.failed_for is None else f"{one.state} ({one.failed_for})"
    time = (
        f"due {_moment(one.due_at)}"
        if one.state in (State.PENDING, State.SENDING)
        else f"ended {_moment(one.finished_at)}"
    )
    lines = [
        f"{one.delivery_id}  {state}",
        f"  {one.petition_id}: {one.threshold:,}, to {one.target_id}, {one.target_name} <{_visible(one.email)}>",
        f"  {one.attempts} {'attempt' if one.attempts == 1 else 'attempts'}, {time}",
    ]
    if one.named_by is not None:
        lines.append(f"  named by the mail {one.named_by}")
    if one.requeued_at is not None:
        by = "" if one.requeued_by is None else f" by {one.requeued_by}"
        lines.append(f"  due again since {_moment(one.requeued_at)}, because of {one.requeued_for}{by}")
    if one.last_words is not None:
        lines.append(f"  {_said(one.last_words)}")
    return "\n".join(lines)


def _said(words: LastWords) -> str:
    return words.text if words.code is None else f"{words.code} {words.text} (to {words.command})"


def _as_json(one: Listed) -> dict[str, object]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value
        for name, value in asdict(one).items()
    }
