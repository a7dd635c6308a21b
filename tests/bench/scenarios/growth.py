"""The cost of a signature when many are stored: verify and PostgreSQL with 10,000 to 5,000,000 rows.

SQL writes the rows, through the same indexes as verify's own, in the order of their signatures. Before each measurement
PostgreSQL is vacuumed and has made a checkpoint, so that no round pays for the filling; every page that changes after that is
written in full to the write-ahead log, as after any checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from tests.bench.measuring import plans
from tests.bench.measuring.measure import written
from tests.bench.measuring.progress import VERIFY, Broker, Stretch, Watch
from tests.bench.results.figures import Figure, at_most_times, figure
from tests.bench.scale import Scale
from tests.bench.setup import backlog, petitions
from tests.bench.setup.arena import Arena

_CHUNK = 100_000

# Ids rise with time, as ingest makes them; signer keys have no order. Lanes take turns, positions have no gaps.
_SIGNATURES = """
INSERT INTO signatures (signature_id, signer_key, petition_id, state, country, submitted_at)
SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || substr(md5('id' || n), 1, 20))::uuid, md5('signer' || n)::uuid,
       $3, 'verified', 'DE', to_timestamp(1700000000 + n / 1000.0)
FROM generate_series($1::bigint, $2::bigint - 1) AS n
"""
_LEDGER = """
INSERT INTO ledger (lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at)
SELECT n % 12, n / 12 + 1, id, $3, id, 'verified', 1, 'DE', moment, moment
FROM generate_series($1::bigint, $2::bigint - 1) AS n,
     LATERAL (SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || substr(md5('id' || n), 1, 20))::uuid AS id,
                     to_timestamp(1700000000 + n / 1000.0) AS moment) AS made
"""


@dataclass(frozen=True, slots=True)
class _Size:
    """Numbers of rows at which to measure, and of signatures before and in each measurement."""

    rows: tuple[int, ...]
    warm: int
    records: int


@dataclass(frozen=True, slots=True)
class _Cost:
    """One measurement."""

    stretch: Stretch
    wal_bytes: float

    @property
    def whole(self) -> float:
        """CPU of verify and PostgreSQL per signature, µs."""
        return self.stretch.cpu_us("verify", "postgres")


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Fill to each size and measure there, several times. The sizes do not alternate: filling takes minutes."""
    size = scale.pick(
        _Size((10_000, 100_000, 1_000_000, 5_000_000), 20_000, 50_000),
        quick=_Size((10_000, 50_000), 5_000, 20_000),
    )
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    costs: dict[int, list[_Cost]] = {rows: [] for rows in size.rows}
    explained: dict[int, dict[str, plans.Plan]] = {}
    filled = signers = 0
    for rows in size.rows:
        await _fill(arena.postgres.url, filled, rows)
        filled = rows
        for _ in range(scale.repeat):
            costs[rows].append(await _measured(arena, size, signers))
            signers += size.warm + size.records
            await _forget_measured(arena.postgres.url)
        await _settle(arena.postgres.url)
        explained[rows] = await plans.explained(arena.postgres.url, petitions.HOT)
        plans.write(explained[rows], arena.logs / f"plans-{rows}.json")
    return _figures(costs, size) + _plan_figures(explained)


async def _fill(url: str, have: int, wanted: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")
        for first in range(have, wanted, _CHUNK):
            end = min(first + _CHUNK, wanted)
            for statement in (_SIGNATURES, _LEDGER):
                await connection.execute(statement, first, end, petitions.HOT, timeout=600)
    finally:
        await connection.close()


async def _measured(arena: Arena, size: _Size, first_signer: int) -> _Cost:
    await _settle(arena.postgres.url)
    broker = Broker(arena.bootstrap_servers)
    done = first_signer  # one record each
    total = size.warm + size.records
    await backlog.submitted(
        arena.bootstrap_servers,
        arena.environment["SIGNER_PEPPER"],
        [petitions.HOT],
        total,
        first_signer=first_signer,
    )
    before = (await written(arena)).postgres
    verify = await arena.service("verify")
    watch = Watch(broker, [VERIFY], [verify, arena.postgres], every=0.1)
    await watch.until({VERIFY: done + total}, timeout_seconds=60 + total / 500)
    wal = ((await written(arena)).postgres - before) / total
    await arena.stop_all()  # instances are counted anew, so the next one has the same name
    return _Cost(watch.course.stretch(VERIFY, done + size.warm, done + total), wal)


async def _forget_measured(url: str) -> None:
    """Remove what a measurement has added, so that the next one starts from the filled state."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DELETE FROM signatures WHERE submitted_at > now() - interval '1 hour'", timeout=600)
        await connection.execute("DELETE FROM ledger WHERE signed_at > now() - interval '1 hour'", timeout=600)
    finally:
        await connection.close()


async def _settle(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM (ANALYZE) signatures, ledger", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)
    finally:
        await connection.close()


def _figures(costs: dict[int, list[_Cost]], size: _Size) -> list[Figure]:
    least, most = min(costs), max(costs)
    figures = [
        figure(
            "growth.cost",
            [cost.whole for cost in costs[most]],
            "µs",
            at_most_times(1.3, f"with {least:,} rows"),
            peer=f"with {least:,} rows",
            peer_values=[cost.whole for cost in costs[least]],
            note=f"CPU of verify and PostgreSQL per signature, with {most:,} rows",
        )
    ]
    for rows, measured in costs.items():
        figures += [
            figure(f"growth.cost.{rows}", [cost.whole for cost in measured], "µs"),
            figure(f"growth.cpu.verify.{rows}", [cost.stretch.cpu_us("verify") for cost in measured], "µs"),
            figure(f"growth.cpu.postgres.{rows}", [cost.stretch.cpu_us("postgres") for cost in measured], "µs"),
            figure(
                f"growth.rate.{rows}", [cost.stretch.rate for cost in measured], "signatures/s", note="verify alone"
            ),
            figure(
                f"growth.bytes.postgres.{rows}",
                [cost.wal_bytes for cost in measured],
                "bytes/signature",
                note=f"write-ahead log after a checkpoint, over {size.warm + size.records:,} signatures",
            ),
        ]
    return figures


def _plan_figures(explained: dict[int, dict[str, plans.Plan]]) -> list[Figure]:
    made = []
    for rows in (min(explained), max(explained)):
        for name, plan in explained[rows].items():
            note = f"EXPLAIN (ANALYZE, BUFFERS) of {plans.BATCH:,}, with {rows:,} rows"
            made += [
                figure(f"growth.plan.{name}.{rows}", [plan.milliseconds * 1_000 / plans.BATCH], "µs", note=note),
                figure(
                    f"growth.blocks.{name}.{rows}",
                    [plan.blocks / plans.BATCH],
                    "blocks",
                    note="of 8 KiB, looked at per signature",
                ),
            ]
    return made
