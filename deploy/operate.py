"""What an operator does by command: check settings, migrate, create topics, audit, rebuild.

Addresses come from the environment; where a variable is not set and a local stack runs, from that stack.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module
from typing import TypeVar

import asyncpg
import structlog
import typer
from aiokafka.errors import KafkaError
from pydantic_settings import BaseSettings
from rich.console import Console
from rich.table import Table

from deploy import migrations
from deploy.local import DEMO_STATE_DIR, STATE_DIR
from deploy.local.state import StackState
from services.ingest.access.credentials import NamedSecrets
from services.tally.announced import announced_now
from services.tally.counting.audit import PetitionAudit
from services.tally.counting.audit import audit as audit_petitions
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from shared import redis as shared_redis
from shared.contract.events import TallyUpdated
from shared.kafka.security import client_options, why_unreachable
from shared.kafka.topics import apply_topics
from shared.postgres import Database
from shared.runtime.settings import (
    CommonSettings,
    DatabaseSettings,
    EnvironmentSettings,
    Exposure,
    KafkaSettings,
    SettingsError,
    environment_name,
    load,
)
from shared.runtime.unreachable import why
from shared.service import new_registry

SERVICES = ("ingest", "verify", "tally", "notify")

_CONNECT_SECONDS = 10.0
_ANNOUNCED_SECONDS = 30.0

console = Console(stderr=True)

SomeSettings = TypeVar("SomeSettings", bound=EnvironmentSettings)


def settings_of(service: str) -> type[CommonSettings]:
    """The settings class of a service."""
    found: type[CommonSettings] = import_module(f"services.{service}.settings").Settings
    return found


def use_running_stack() -> None:
    """Fill what the environment leaves open from the local stack, if one runs: that of `up`, else that of the demo."""
    for state_dir in (STATE_DIR, DEMO_STATE_DIR):
        try:
            state = StackState.read(state_dir)
        except FileNotFoundError:
            continue
        for name, value in state.environment.items():
            os.environ.setdefault(name, value)
        return


def check(services: list[str], *, as_json: bool) -> int:
    """Validate the settings of services as they would be read now. Returns the exit code: 2 when one is wrong."""
    wrong: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    named: dict[str, dict[str, str]] = {}
    exposed: dict[str, Exposure] = {}
    for service in services:
        try:
            settings = load(settings_of(service))
        except SettingsError as error:
            wrong[service] = str(error)
            continue
        values[service] = _shown(settings)
        named[service] = {
            environment_name(type(settings), field): str(value)
            for field in type(settings).model_fields
            if isinstance(value := getattr(settings, field), NamedSecrets) and value
        }
        exposed |= {exposure.variable: exposure for exposure in settings.exposures()}
    warnings = [_warning(exposure) for exposure in exposed.values()]
    if as_json:
        typer.echo(json.dumps({"ok": not wrong, "errors": wrong, "warnings": warnings, "settings": values}))
    else:
        for service in services:
            if service in wrong:
                console.print(f"[red]{service}: {wrong[service]}", highlight=False)
            else:
                console.print(f"[green]{service}: ok[/green] ({len(values[service])} settings)", highlight=False)
                for variable, names in named.get(service, {}).items():
                    console.print(f"  {variable}: {names}", highlight=False, markup=False)
        for warning in warnings:
            console.print(warning, style="yellow", highlight=False, markup=False)
    return 2 if wrong else 0


def _shown(settings: BaseSettings) -> dict[str, str]:
    """Values by environment name; secrets, and addresses that may hold a password, as stars."""
    return {
        environment_name(type(settings), field): str(getattr(settings, field)) for field in type(settings).model_fields
    }


def _warning(exposure: Exposure) -> str:
    return (
        f"{exposure.variable} sends a password unencrypted to {', '.join(exposure.hosts)}; use {exposure.advice},"
        " unless nobody else can listen on the way"
    )


async def migrate(*, as_json: bool) -> int:
    """Bring the tables up to date. Returns the exit code: 1 when PostgreSQL cannot be reached."""
    settings = settings_with(DatabaseSettings, "POSTGRES_URL")
    try:
        done = await migrations.migrate(settings.postgres_url.get_secret_value())
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        return failed(f"PostgreSQL is away: {why(error)}", as_json=as_json)
    typer.echo(json.dumps({"ok": True, "applied": done}) if as_json else "\n".join(done) or "Nothing to do.")
    return 0


async def apply(*, partitions: int, replication_factor: int, as_json: bool) -> int:
    """Create and configure the topics. Returns the exit code: 1 when Kafka cannot be reached."""
    settings = settings_with(KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS")
    try:
        done = await apply_topics(
            settings.kafka_bootstrap_servers,
            partitions=partitions,
            replication_factor=replication_factor,
            security=client_options(settings),
        )
    except KafkaError:
        if (reason := await why_unreachable(settings)) is None:
            raise
        return failed(f"Kafka is away: {reason}", as_json=as_json)
    lines = "\n".join(f"{topic}: {what}" for topic, what in done.items())
    typer.echo(json.dumps({"ok": True, "topics": done}) if as_json else lines)
    return 0


def settings_with(settings: type[SomeSettings], address: str) -> SomeSettings:
    """Settings of the environment or of the running local stack, if one of them has the address.

    Raises:
        typer.BadParameter: neither has it, or a setting is wrong.
    """
    use_running_stack()
    if not os.environ.get(address) and f"{address}_FILE" not in os.environ:
        raise typer.BadParameter(
            f"{address} is not set, and no local stack runs: set it, or start one with `groundswell up`"
        )
    return _loaded(settings)


def _loaded(settings: type[SomeSettings]) -> SomeSettings:
    try:
        return load(settings)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def failed(message: str, *, as_json: bool) -> int:
    """Say what a command failed at. Returns its exit code."""
    if as_json:
        typer.echo(json.dumps({"ok": False, "error": message}))
    else:
        console.print(message, style="red", highlight=False, markup=False, soft_wrap=True)
    return 1


class Counts:
    """Redis and the ledger, opened for one command."""

    def __init__(self) -> None:
        use_running_stack()
        from services.tally.settings import Settings

        # What is printed is the answer; what the database and the healer have to say goes beside it.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        settings = _loaded(Settings)
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
                f"{await self._database.check()}. Set POSTGRES_URL and REDIS_URL, or start a local stack with"
                " `groundswell up`"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()
        await self._database.close()


async def audit(petitions: list[str], *, as_json: bool) -> int:
    """Compare Redis with the ledger, and with what was announced. Returns the exit code: 1 when anything differs."""
    announced, unknown = await _announced()
    async with Counts() as counts:
        chosen = petitions or sorted({*await counts.ledger.petitions(), *announced})
        results = await audit_petitions(counts.store, counts.ledger, chosen, announced)
    drift = sum(abs(result.drift) for result in results)
    right = all(result.right for result in results)
    if as_json:
        body = {
            "ok": right,
            "drift": drift,
            "announced_compared": unknown is None,
            "petitions": [result.as_json() for result in results],
        }
        typer.echo(json.dumps(body))
    else:
        console.print(_audit_table(results))
        console.print(f"drift {drift}" if right else f"[red]drift {drift}: the counts can't be proved; see the table")
        if unknown is not None:
            console.print(f"Not compared with what was announced: {unknown}", style="yellow", markup=False)
    return 0 if right else 1


async def _announced() -> tuple[dict[str, TallyUpdated], str | None]:
    """What was announced last; or nothing, and why that is not known. Redis and the ledger can be compared all the same."""
    use_running_stack()
    settings = _loaded(KafkaSettings)
    try:
        async with asyncio.timeout(_ANNOUNCED_SECONDS):
            return await announced_now(settings), None
    except (KafkaError, OSError, TimeoutError) as error:
        return {}, f"Kafka is away: {await why_unreachable(settings) or type(error).__name__}"


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
