"""`groundswell admin-events`: lists who changed what, from the table `admin_events`."""

from __future__ import annotations

import json
import sys
from typing import Any

import asyncpg
import typer
from rich.console import Console
from rich.table import Table

from deploy.operate import failed, settings_with
from shared.runtime.settings import DatabaseSettings
from shared.runtime.unreachable import why

_CONNECT_SECONDS = 10.0

_WIDTH = 240
"""Columns if the output is not a terminal, so that lines are not wrapped for `grep`."""

_LIST = """
SELECT event_id, at, actor, role, call, petition_id, signature_id, changed, etag_before, etag_after, version, request_id,
       outcome, finished_at
FROM admin_events WHERE $1::text IS NULL OR petition_id = $1 ORDER BY at DESC, event_id LIMIT $2
"""


async def list_events(petition_id: str | None, *, limit: int, as_json: bool) -> int:
    """Print the newest events, the oldest of them first. Returns the exit code: 1 if they cannot be read."""
    settings = settings_with(DatabaseSettings, "POSTGRES_URL")
    try:
        connection = await asyncpg.connect(settings.postgres_url.get_secret_value(), timeout=_CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        return failed(f"PostgreSQL is away: {why(error)}", as_json=as_json)
    try:
        rows = await connection.fetch(_LIST, petition_id, limit)
    except asyncpg.UndefinedTableError:
        return failed("There is no table admin_events: run `groundswell migrate`", as_json=as_json)
    finally:
        await connection.close()
    events = [dict(row) for row in reversed(rows)]
    if as_json:
        typer.echo(json.dumps({"ok": True, "events": events}, default=_text))
    elif events:
        Console(width=None if sys.stdout.isatty() else _WIDTH).print(_table(events))
    else:
        typer.echo("No administrator has changed anything.")
    return 0


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _table(events: list[dict[str, Any]]) -> Table:
    table = Table("at (UTC)", "who", "call", "petition", "about", "outcome")
    for event in events:
        about = str(event["signature_id"] or "") or ", ".join(event["changed"])
        at = f"{event['at']:%Y-%m-%d %H:%M:%S}"
        table.add_row(at, event["actor"], event["call"], event["petition_id"], about, event["outcome"])
    return table
