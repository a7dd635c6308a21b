"""Commands for operators: check settings, migrate, create topics, audit, rebuild. This module has their options, output and
exit codes; the work is done elsewhere.

Addresses come from the environment, or from a running local stack if a variable is not set.
"""

from __future__ import annotations

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
from services.tally import operations
from services.tally.counting.audit import PetitionAudit
from services.tally.operations import Counts, CountsAway
from shared.kafka.apply_topics import apply_topics
from shared.kafka.security import client_options, why_unreachable
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

SERVICES = ("ingest", "verify", "tally", "notify")

console = Console(stderr=True)

SomeSettings = TypeVar("SomeSettings", bound=EnvironmentSettings)


def settings_of(service: str) -> type[CommonSettings]:
    """Return the settings class of a service."""
    found: type[CommonSettings] = import_module(f"services.{service}.settings").Settings
    return found


def use_running_stack() -> None:
    """Set missing environment variables from a running local stack: that of `up`, otherwise that of the demo."""
    for state_dir in (STATE_DIR, DEMO_STATE_DIR):
        try:
            state = StackState.read(state_dir)
        except FileNotFoundError:
            continue
        for name, value in state.environment.items():
            os.environ.setdefault(name, value)
        return


def check(services: list[str], *, as_json: bool) -> int:
    """Validate the current settings of services. Returns the exit code: 2 if one is invalid."""
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
    """Return values by environment name; secrets, and URLs that may hold a password, as asterisks."""
    return {
        environment_name(type(settings), field): str(getattr(settings, field)) for field in type(settings).model_fields
    }


def _warning(exposure: Exposure) -> str:
    return (
        f"{exposure.variable} sends a password unencrypted to {', '.join(exposure.hosts)}; use {exposure.advice},"
        " unless nobody else can listen on the way"
    )


async def migrate(*, as_json: bool) -> int:
    """Apply pending migrations. Returns the exit code: 1 if PostgreSQL cannot be reached."""
    settings = settings_with(DatabaseSettings, "POSTGRES_URL")
    try:
        done = await migrations.migrate(settings.postgres_url.get_secret_value())
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        return failed(f"PostgreSQL is away: {why(error)}", as_json=as_json)
    typer.echo(json.dumps({"ok": True, "applied": done}) if as_json else "\n".join(done) or "Nothing to do.")
    return 0


async def apply(*, partitions: int, replication_factor: int, as_json: bool) -> int:
    """Create and configure the topics. Returns the exit code: 1 if Kafka cannot be reached."""
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
    """Load settings from the environment or the running local stack, if one of them has the variable `address`.

    Raises:
        typer.BadParameter: neither has it, or a setting is invalid.
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
    """Print why a command failed. Returns its exit code."""
    if as_json:
        typer.echo(json.dumps({"ok": False, "error": message}))
    else:
        console.print(message, style="red", highlight=False, markup=False, soft_wrap=True)
    return 1


def _counts() -> Counts:
    """Return Redis and the ledger, from the settings of tally."""
    use_running_stack()
    from services.tally.settings import Settings

    # Standard output is for the command's result; logs go to standard error.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = _loaded(Settings)
    return Counts(
        redis_url=settings.redis_url.get_secret_value(), postgres_url=settings.postgres_url.get_secret_value()
    )


def _no_counts(away: CountsAway) -> typer.BadParameter:
    return typer.BadParameter(f"{away}. Set POSTGRES_URL and REDIS_URL, or start a local stack with `groundswell up`")


async def audit(petitions: list[str], *, as_json: bool) -> int:
    """Print how Redis compares with the ledger and with tallies.updated. Returns the exit code: 1 if anything differs."""
    use_running_stack()
    announced = await operations.read_announced(_loaded(KafkaSettings))
    try:
        async with _counts() as counts:
            found = await operations.audit(counts, announced, petitions)
    except CountsAway as away:
        raise _no_counts(away) from None
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        console.print(_audit_table(found.petitions))
        drift = f"drift {found.drift}"
        console.print(drift if found.right else f"[red]{drift}: the counts can't be proved; see the table")
        if found.not_compared is not None:
            console.print(f"Not compared with what was announced: {found.not_compared}", style="yellow", markup=False)
    return 0 if found.right else 1


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
    """Rebuild tallies from the ledger and print their new values. Returns the exit code."""
    try:
        async with _counts() as counts:
            rebuilt = await operations.rebuild(counts, petitions, force=force)
    except CountsAway as away:
        raise _no_counts(away) from None
    if as_json:
        shown = {name: {"count": state.count, "revision": state.revision} for name, state in rebuilt.items()}
        typer.echo(json.dumps({"ok": True, "petitions": shown}))
    else:
        for petition_id, state in rebuilt.items():
            console.print(f"{petition_id}: {state.count:,} (revision {state.revision:,})")
    return 0
