"""`groundswell deliveries`: the options and output for `services.notify.operations`, at POSTGRES_URL."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Final
from uuid import UUID

import typer

from deploy.operate import console, failed, settings_with
from services.notify import operations
from services.notify.operations import NOT_BY_COMMAND, DueAgain, NotDone
from services.notify.outbox.listing import LastWords, Listed, State, moment_text
from shared.runtime.settings import DatabaseSettings

_SHOWN: Final = 20
"""Maximum number of deliveries that text output names; JSON has all."""


async def show(*, petition_id: str | None, state: State | None, limit: int, as_json: bool) -> int:
    """List deliveries, the last changed first. Returns the exit code: 1 if PostgreSQL is away."""
    try:
        async with operations.connected(_postgres_url()) as connection:
            found = await operations.find(connection, petition_id=petition_id, state=state, limit=limit)
    except NotDone as reason:
        return failed(str(reason), as_json=as_json)
    if as_json:
        body = {"ok": True, "deliveries": [_as_json(one) for one in found.deliveries], "more": found.more}
        typer.echo(json.dumps(body))
        return 0
    for one in found.deliveries:
        typer.echo(_as_text(one))
    if not found.deliveries:
        console.print("No deliveries like this.")
    if found.more:
        console.print(f"There are more than {limit}; name a petition or a state, or raise --limit.")
    return 0


async def retry(
    *, petition_id: str | None, delivery: UUID | None, all_failed: bool, actor: str | None, as_json: bool
) -> int:
    """Make failed deliveries due again. Returns the exit code: 1 if it is refused or PostgreSQL is away.

    Raises:
        typer.BadParameter: not exactly one of petition, delivery and all is given.
    """
    if sum([petition_id is not None, delivery is not None, all_failed]) != 1:
        raise typer.BadParameter("name one of --petition, --delivery and --all-failed")
    try:
        async with operations.connected(_postgres_url()) as connection:
            done = await operations.retry(connection, petition_id=petition_id, delivery=delivery, actor=actor)
    except NotDone as reason:
        return failed(str(reason), as_json=as_json)
    if as_json:
        body = {
            "ok": True,
            "requeued": len(done.again),
            "deliveries": [str(one) for one in done.again],
            "left": [{"delivery_id": str(one.delivery_id), "why": one.why} for one in done.left],
            "not_by_command": {cause.value: number for cause, number in done.not_by_command.items()},
        }
        typer.echo(json.dumps(body))
    else:
        _say(done, petition_id)
    return 0


def _postgres_url() -> str:
    """Return POSTGRES_URL, by default that of the running local stack.

    Raises:
        typer.BadParameter: it is invalid or missing.
    """
    return settings_with(DatabaseSettings, "POSTGRES_URL").postgres_url.get_secret_value()


# -------------------------------------------------------------------------------------------------------------- output


def _say(done: DueAgain, petition_id: str | None) -> None:
    if done.again:
        watch = "" if petition_id is None else f" --petition {petition_id}"
        typer.echo(
            f"{_deliveries(len(done.again))} due again; those to one target share a mail. notify sends them within seconds."
            f" Watch: groundswell deliveries list{watch}, and the metric groundswell_notify_failed_deliveries"
        )
    else:
        typer.echo("Nothing is due again: no delivery failed that a command can retry.")
    for one in done.left[:_SHOWN]:
        console.print(f"Left: {one.delivery_id}: {one.why}", style="yellow", markup=False, soft_wrap=True)
    if len(done.left) > _SHOWN:
        console.print(f"Left as well: {len(done.left) - _SHOWN} more; --json names them", style="yellow")
    for cause, number in done.not_by_command.items():
        console.print(f"Left: {number}, for {NOT_BY_COMMAND[cause]}", style="yellow", markup=False, soft_wrap=True)


def _deliveries(number: int) -> str:
    return "1 delivery is" if number == 1 else f"{number:,} deliveries are"


def _visible(email: str) -> str:
    """Return an address with blanks and look-alike letters made visible: a text that is not plain ASCII is JSON-escaped."""
    return email if email.isascii() and email.isprintable() and " " not in email else json.dumps(email)


def _as_text(one: Listed) -> str:
    state = one.state if one.failed_for is None else f"{one.state} ({one.failed_for})"
    time = (
        f"due {moment_text(one.due_at)}"
        if one.state in (State.PENDING, State.SENDING)
        else f"ended {moment_text(one.finished_at)}"
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
        lines.append(f"  due again since {moment_text(one.requeued_at)}, because of {one.requeued_for}{by}")
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
