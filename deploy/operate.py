"""What an operator does by command: check settings, migrate, create topics, audit, rebuild.

Addresses come from the environment; where a variable is not set and a local stack runs, from that stack.
"""

from __future__ import annotations

import asyncio
import json
import os
from importlib import import_module

import typer
from pydantic_settings import BaseSettings
from rich.console import Console
from rich.table import Table

from deploy.local.state import StackState
from services.tally.audit import PetitionAudit
from services.tally.audit import audit as audit_petitions
from services.tally.healing import Healer
from services.tally.ledger import Ledger
from services.tally.metrics import TallyMetrics
from services.tally.store import TallyStore
from shared import redis as shared_redis
from shared.postgres import Database
from shared.service import new_registry
from shared.settings import CommonSettings, SettingsError, environment_name, load

SERVICES = ("ingest", "verify", "tally", "notify")

_CONNECT_SECONDS = 10.0

console = Console(stderr=True)


def settings_of(service: str) -> type[CommonSettings]:
    """The settings class of a service."""
    found: type[CommonSettings] = import_module(f"services.{service}.settings").Settings
    return found


def use_running_stack() -> None:
    """Fill what the environment leaves open from the local stack, if one runs."""
    try:
        state = StackState.read()
    except FileNotFoundError:
        return
    for name, value in state.environment.items():
        os.environ.setdefault(name, value)


def check(services: list[str], *, as_json: bool) -> int:
    """Validate the settings of services as they would be read now. Returns the exit code: 2 when one is wrong."""
    wrong: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    for service in services:
        try:
            settings = load(settings_of(service))
        except SettingsError as error:
            wrong[service] = str(error)
            continue
        values[service] = _shown(settings)
    if as_json:
        typer.echo(json.dumps({"ok": not wrong, "errors": wrong, "settings": values}))
    else:
        for service in services:
            if service in wrong:
                console.print(f"[red]{service}: {wrong[service]}", highlight=False)
            else:
                console.print(f"[green]{service}: ok[/green] ({len(values[service])} settings)", highlight=False)
    return 2 if wrong else 0


def _shown(settings: BaseSettings) -> dict[str, str]:
    """Values by environment name; secrets, and addresses that may hold a password, as stars."""
    return {
        environment_name(type(settings), field): str(getattr(settings, field)) for field in type(settings).model_fields
    }


class Counts:
    """Redis and the ledger, opened for one command."""

    def __init__(self) -> None:
        use_running_stack()
        from services.tally.settings import Settings

        settings = load(Settings)
        self._redis = shared_redis.connect(settings.redis_url.get_secret_value())
        self._database = Database(settings.postgres_url.get_secret_value(), application="command")
        self.store, self.ledger = TallyStore(self._redis), Ledger(self._database)
        self.healer = Healer(
            redis=self._redis, store=self.store, ledger=self.ledger, metrics=TallyMetrics(new_registry())
        )

    async def __aenter__(self) -> Counts:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._database.open()
        except TimeoutError:
            raise typer.BadParameter(
                "PostgreSQL does not answer. Set POSTGRES_URL and REDIS_URL, or start a local stack with `groundswell up`"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()
        await self._database.close()


async def audit(petitions: list[str], *, as_json: bool) -> int:
    """Compare Redis with the ledger. Returns the exit code: 1 when anything differs."""
    async with Counts() as counts:
        results = await audit_petitions(counts.store, counts.ledger, petitions or await counts.ledger.petitions())
    drift = sum(abs(result.drift) for result in results)
    right = all(result.right for result in results)
    if as_json:
        body = {"ok": right, "drift": drift, "petitions": [result.as_json() for result in results]}
        typer.echo(json.dumps(body))
    else:
        console.print(_audit_table(results))
        console.print(f"drift {drift}" if right else f"[red]drift {drift}: the counts can't be proved; see the table")
    return 0 if right else 1


def _audit_table(results: list[PetitionAudit]) -> Table:
    table = Table("petition", "counted", "proved", "drift", "still to count", "differences")
    for result in results:
        table.add_row(
            result.petition_id,
            f"{result.counted:,}",
            f"{result.proved:,}",
            str(result.drift),
            str(result.beyond),
            ", ".join(result.differences[:5]) or "none",
        )
    return table


async def rebuild(petitions: list[str], *, force: bool, as_json: bool) -> int:
    """Rebuild tallies from the ledger, beside running traffic."""
    rebuilt = {}
    async with Counts() as counts:
        for petition_id in petitions or await counts.ledger.petitions():
            state = await counts.healer.rebuild(petition_id, cause="command", force=force)
            rebuilt[petition_id] = {"count": state.count, "revision": state.revision}
    if as_json:
        typer.echo(json.dumps({"ok": True, "petitions": rebuilt}))
    else:
        for petition_id, state_now in rebuilt.items():
            console.print(f"{petition_id}: {state_now['count']:,} (revision {state_now['revision']:,})")
    return 0
