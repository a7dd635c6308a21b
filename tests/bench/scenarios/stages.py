"""The CPU of ingest, verify and tally by stage, while each is fully loaded.

py-spy samples the process two hundred times a second, from outside. The part of the samples in a stage, times the
process's CPU per signature over the same seconds, is the stage's cost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from deploy.local.parts.process import Process
from tests.bench.clients import load
from tests.bench.measuring.measure import cpu_seconds
from tests.bench.measuring.profile import sampled
from tests.bench.measuring.progress import TALLY, VERIFY, Broker, Reader, Watch
from tests.bench.results.figures import Figure, figure
from tests.bench.scale import Scale
from tests.bench.setup import backlog, petitions
from tests.bench.setup.arena import Arena

_CONNECTIONS = 64


class _Stages(defaultdict[tuple[str, str], list[float]]):
    """Microseconds per signature, by service and stage, a value for each round."""

    def __init__(self) -> None:
        super().__init__(list)

    def note(self, service: str, shares: dict[str, float], cpu_us: float) -> None:
        for stage, share in shares.items():
            self[service, stage].append(share * cpu_us)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Sample ingest under full load, then verify and tally with a backlog, each alone with its parts."""
    found = _Stages()
    for _ in range(scale.repeat):
        await _ingest(arena, scale, found)
        for service, reader in (("verify", VERIFY), ("tally", TALLY)):
            await _consumer(arena, scale, found, service, reader)
    return [figure(f"stages.{service}.{stage}", values, "µs") for (service, stage), values in found.items()]


async def _ingest(arena: Arena, scale: Scale, found: _Stages) -> None:
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    ingest = await arena.service("ingest")
    await load.warm(ingest.url, [petitions.HOT], scale.warm_seconds)
    seconds = scale.seconds
    busy = asyncio.create_task(load.sign(ingest.url, [petitions.HOT], seconds=seconds + 3, connections=_CONNECTIONS))
    before, broker = cpu_seconds(ingest), Broker(arena.bootstrap_servers)
    have = await broker.written(VERIFY.topic)
    shares = await sampled("ingest", _pid(ingest), seconds, arena.logs)
    done, used = await broker.written(VERIFY.topic) - have, cpu_seconds(ingest) - before
    await busy
    found.note("ingest", shares, used / done * 1e6)


async def _consumer(arena: Arena, scale: Scale, found: _Stages, name: str, reader: Reader) -> None:
    """A backlog that lasts longer than the sampling."""
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    if name == "verify":
        warm, records = scale.pick((60_000, 600_000), quick=(5_000, 80_000))
        await backlog.submitted(
            arena.bootstrap_servers, arena.environment["SIGNER_PEPPER"], [petitions.HOT], warm + records
        )
        service = await arena.service("verify")
    else:
        warm, records = scale.pick((100_000, 1_500_000), quick=(20_000, 300_000))
        await backlog.verified(arena.bootstrap_servers, arena.postgres.url, [petitions.HOT], warm + records)
        # The facts have no ledger, with which an audit would compare the counts.
        service = await arena.service("tally", TALLY_AUDIT_SECONDS="0")
    broker = Broker(arena.bootstrap_servers)
    await Watch(broker, [reader], [service], every=0.1).until({reader: warm}, timeout_seconds=120)
    before, have = cpu_seconds(service), await broker.committed(reader)
    shares = await sampled(name, _pid(service), scale.pick(8.0, quick=2.0), arena.logs)
    done, used = await broker.committed(reader) - have, cpu_seconds(service) - before
    await arena.stop_all()
    found.note(name, shares, used / done * 1e6)


def _pid(process: Process) -> int:
    assert process.pid is not None, f"{process.name} does not run"
    return process.pid
