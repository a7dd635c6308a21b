"""Schema migrations: numbered SQL files beside this module, each applied once, in order, in its own transaction."""

from __future__ import annotations

import re
from importlib import resources

import asyncpg

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_LOCK = 0x67726F756E64  # "ground": two migrations at once wait for each other


def migrations() -> list[tuple[str, str]]:
    """Return all migrations as (file name, SQL), in order."""
    files = (entry for entry in resources.files(__package__).iterdir() if _NAME.match(entry.name))
    return [(entry.name, entry.read_text(encoding="utf-8")) for entry in sorted(files, key=lambda entry: entry.name)]


async def migrate(postgres_url: str) -> list[str]:
    """Apply pending migrations. Idempotent, and safe to run concurrently.

    Returns:
        The names of the migrations that this call applied.

    Raises:
        asyncpg.PostgresError: a migration failed; it and those after it were not applied.
    """
    connection = await asyncpg.connect(postgres_url, timeout=10)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {row["name"] for row in await connection.fetch("SELECT name FROM schema_migrations")}
        done = []
        for name, sql in migrations():
            if name in applied:
                continue
            async with connection.transaction():
                await connection.execute(sql)
                await connection.execute("INSERT INTO schema_migrations (name) VALUES ($1)", name)
            done.append(name)
        return done
    finally:
        await connection.close()
