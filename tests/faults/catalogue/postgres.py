"""Faults of PostgreSQL itself, and errors that it returns while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import asyncpg

from shared.runtime.failures import is_transient
from tests.faults.breaking.moments import wait_for_moment
from tests.faults.catalogue import parts
from tests.faults.fault import Fault

if TYPE_CHECKING:
    from tests.faults.world import World

_POSTGRES: Final = frozenset({"postgres"})
_WRITTEN: Final = ("signatures", "ledger", "milestones", "deliveries")
_OF_SERVICES: Final = "application_name LIKE 'groundswell-%'"
_PATIENCE: Final = 60.0  # seconds to lift a fault against services that hold locks


async def _killed(world: World, random: Random) -> None:
    await parts.killed(world.postgres, world, random)


async def _restarted(world: World, random: Random) -> None:
    await parts.restarted(world.postgres, world, random)


async def _paused(world: World, random: Random) -> None:
    await parts.paused(world.postgres, world, random)


async def _backends_terminated(world: World, random: Random) -> None:
    """Connections are ended, as by an administrator, or by a pooler that ends old ones."""
    async with _connected(world) as connection:
        for _ in range(random.randint(3, 6)):
            ended = await _terminate_backends(connection)
            world.timeline.note("postgres backends terminated", backends=ended)
            await asyncio.sleep(random.uniform(0.1, 0.8))


# ------------------------------------------------------------------------------------------------- errors from within


async def _serialization_failures(world: World, random: Random) -> None:
    """SQLSTATE 40001 at the commit of some transactions, as PostgreSQL itself raises it."""
    share = random.randint(30, 70)
    raising = f"""
        CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {_drawn(random, share)} THEN
                PERFORM nextval('fault_hits');
                RAISE EXCEPTION 'could not serialize access due to a fault' USING ERRCODE = '40001';
            END IF;
            RETURN NULL;
        END $$;
    """
    triggers = "".join(
        f"CREATE CONSTRAINT TRIGGER fault AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fault();"
        for table in _WRITTEN
    )
    async with _in_place(world, raising + triggers, "postgres serialization failures", share=share):
        await _somebody_is_hit(world)
        await asyncio.sleep(random.uniform(1.0, 4.0))


async def _deadlocks(world: World, random: Random) -> None:
    """SQLSTATE 40P01 at some statements."""
    share = random.randint(30, 70)
    raising = f"""
        CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {_drawn(random, share)} THEN
                PERFORM nextval('fault_hits');
                RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
            END IF;
            RETURN NULL;
        END $$;
    """
    async with _in_place(world, raising + _triggers_of_statements(), "postgres deadlocks", share=share):
        await _somebody_is_hit(world)
        await asyncio.sleep(random.uniform(1.0, 4.0))


async def _disk_full(world: World, random: Random) -> None:
    """No space left on device (SQLSTATE 53100), from a real write: each statement of a service also writes to a table
    whose file is `/dev/full`. Only that table is on the full device, so the server itself, its log included, goes on."""
    filling = """
        CREATE TABLE fault_full (bytes text);
        CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('fault_hits');
            INSERT INTO fault_full VALUES ('more');
            RETURN NULL;
        END $$;
    """
    async with _in_place(world, filling, "postgres disk full"):
        file = await _file_of(world, "fault_full")
        # The file that the server made is to be synced by its name; later that name means another file.
        await _surely(world, "CHECKPOINT")
        with _on_a_full_device(file):
            await _surely(world, _triggers_of_statements())
            await _somebody_is_hit(world)
            await asyncio.sleep(random.uniform(1.0, 4.0))


@contextlib.contextmanager
def _on_a_full_device(file: Path) -> Iterator[None]:
    aside = file.with_name(f"{file.name}.aside")
    file.rename(aside)
    try:
        file.symlink_to("/dev/full")
        yield
    finally:
        aside.replace(file)


def _drawn(random: Random, share: int) -> str:
    """An SQL condition that holds for `share` percent of all transactions, by their numbers and a seed."""
    return f"abs(hashint8extended(pg_current_xact_id()::text::bigint, {random.getrandbits(31)}) % 100) < {share}"


def _triggers_of_statements() -> str:
    return "".join(
        f"CREATE TRIGGER fault BEFORE INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION fault();"
        for table in _WRITTEN
    )


@asynccontextmanager
async def _in_place(world: World, statements: str, what: str, **facts: object) -> AsyncIterator[None]:
    try:
        await _surely(world, "CREATE SEQUENCE fault_hits;" + statements)
        world.timeline.note(what, **facts)
        yield
    finally:
        await _surely(
            world,
            "DROP FUNCTION IF EXISTS fault CASCADE; DROP TABLE IF EXISTS fault_full; DROP SEQUENCE IF EXISTS fault_hits",
        )
        world.timeline.note(f"{what}: over")


async def _somebody_is_hit(world: World) -> None:
    """Wait for the first error. A sequence counts them, because its value survives the rollback."""
    async with _connected(world) as connection:
        hit = False

        async def look() -> None:
            nonlocal hit
            while not hit:
                hit = bool(await connection.fetchval("SELECT is_called FROM fault_hits"))
                await asyncio.sleep(0.05)

        looking = asyncio.create_task(look())
        try:
            await wait_for_moment(world, "a write to PostgreSQL", lambda: hit or looking.done())
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking


# ---------------------------------------------------------------------------------------------- no connections to be had


async def _connections_exhausted(world: World, random: Random) -> None:
    """Other clients hold all connections; the services lose theirs and get `too many clients already` (SQLSTATE 53300)."""
    async with contextlib.AsyncExitStack() as held:
        first = await held.enter_async_context(_connected(world))
        taken = 0
        ends = asyncio.get_running_loop().time() + random.uniform(3.0, 6.0)
        while asyncio.get_running_loop().time() < ends:
            taken += await _take_all(world, held)
            ended = await _terminate_backends(first)
            if ended:
                world.timeline.note("postgres connections taken", held=taken + 1, backends_terminated=ended)
            else:
                await asyncio.sleep(0.1)
    world.timeline.note("postgres connections given back")


async def _take_all(world: World, held: contextlib.AsyncExitStack) -> int:
    """Connect until PostgreSQL refuses, and return the number of connections."""
    for taken in range(1_000):
        try:
            await held.enter_async_context(_connected(world))
        except asyncpg.TooManyConnectionsError:
            return taken
    raise RuntimeError("PostgreSQL gives connections without end")


async def _terminate_backends(connection: asyncpg.Connection) -> int:
    """End the services' connections, and return their number."""
    return int(
        await connection.fetchval(
            f"SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {_OF_SERVICES}"
        )
    )


# -------------------------------------------------------------------------------------------------------------- helpers


@asynccontextmanager
async def _connected(world: World) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world.postgres_url, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def _surely(world: World, statements: str) -> None:
    """Run statements, and retry while services hold locks on the tables or win a deadlock."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                async with _connected(world) as connection:
                    await connection.execute("SET lock_timeout = '2s'")
                    await connection.execute(statements)
                    return
            except (asyncpg.PostgresError, OSError) as error:
                if not is_transient(error):
                    raise
                world.timeline.note("postgres statement repeated", cause=type(error).__name__)
            await asyncio.sleep(0.1)


async def _file_of(world: World, table: str) -> Path:
    async with _connected(world) as connection:
        return world.postgres.data_dir / str(await connection.fetchval("SELECT pg_relation_filepath($1)", table))


FAULTS: Final = (
    Fault("postgres-killed", _POSTGRES, _killed),
    Fault("postgres-restarted", _POSTGRES, _restarted),
    Fault("postgres-paused", _POSTGRES, _paused),
    Fault("postgres-backends-terminated", _POSTGRES, _backends_terminated),
    Fault("postgres-serialization-failures", _POSTGRES, _serialization_failures),
    Fault("postgres-deadlocks", _POSTGRES, _deadlocks),
    Fault("postgres-connections-exhausted", _POSTGRES, _connections_exhausted),
    Fault("postgres-disk-full", _POSTGRES, _disk_full),
)
