"""/livez and /readyz: alive whatever happens, ready only with all it needs, and saying what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from deploy.local.ports import free_port
from deploy.local.process import Process
from deploy.local.service import SERVICES, ServiceName, ServiceProcess
from tests.integration.system import System, eventually

NEEDS: dict[ServiceName, set[str]] = {
    "ingest": {"kafka", "petitions"},
    "verify": {"kafka", "petitions", "postgres"},
    "tally": {"kafka", "petitions", "postgres", "redis"},
    "notify": {"kafka", "petitions", "postgres", "smtp"},
}
"""Without what a service is not ready. Only status and moderation need PostgreSQL in ingest: it names it, and is ready."""


def part_of(system: System, dependency: str) -> Process:
    part = {
        "kafka": system.stack.kafka,
        "postgres": system.stack.postgres,
        "redis": system.stack.valkey,
        "smtp": system.stack.mailbox,
    }[dependency]
    assert part is not None
    return part


async def readiness(system: System, service: ServiceName) -> tuple[int, dict[str, str]]:
    """The status of /readyz, and what is not ok by the dependency's name."""
    answer = await system.http.get(f"{system.stack.services[service][0].url}/readyz", timeout=30)
    assert answer.json()["service"] == service
    return answer.status_code, {name: said for name, said in answer.json()["checks"].items() if said != "ok"}


async def lives(system: System, service: ServiceName) -> bool:
    answer = await system.http.get(f"{system.stack.services[service][0].url}/livez", timeout=30)
    return answer.status_code == 200


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_has_all_it_needs_is_ready(service: ServiceName, system: System) -> None:
    answer = await system.http.get(f"{system.stack.services[service][0].url}/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert set(answer.json()["checks"]) >= NEEDS[service]
    assert await lives(system, service)


async def are_named(system: System, away: set[str]) -> None:
    """Wait until each service names what it needs of `away`, and nothing that is there; all live, all others are ready."""

    async def as_expected() -> bool:
        assert all(await asyncio.gather(*(lives(system, service) for service in SERVICES)))
        said = await asyncio.gather(*(readiness(system, service) for service in SERVICES))
        return all(
            NEEDS[service] & away <= set(wrong) <= away and status == (503 if NEEDS[service] & away else 200)
            for service, (status, wrong) in zip(SERVICES, said, strict=True)
        )

    await eventually(as_expected, f"those that need {away} say what is away, the others are ready", seconds=30)


async def all_are_ready(system: System) -> None:
    async def ready() -> bool:
        said = await asyncio.gather(*(readiness(system, service) for service in SERVICES))
        return said == [(200, {})] * len(SERVICES)

    await eventually(ready, "all are ready again", seconds=30)


@pytest.mark.parametrize("away", [["redis"], ["postgres"], ["redis", "postgres", "smtp"]], ids=" and ".join)
async def test_parts_that_have_stopped_are_named_by_those_that_need_them(away: list[str], system: System) -> None:
    parts = [part_of(system, dependency) for dependency in away]
    await asyncio.gather(*(part.stop() for part in parts))
    try:
        await are_named(system, set(away))
    finally:
        await asyncio.gather(*(part.start() for part in parts))
    await all_are_ready(system)


@pytest.mark.parametrize("away", [["postgres"], ["redis", "postgres", "smtp", "kafka"]], ids=" and ".join)
async def test_parts_that_hang_are_named_by_those_that_need_them(away: list[str], system: System) -> None:
    parts = [part_of(system, dependency) for dependency in away]
    for part in parts:
        part.pause()  # its connections stay open, and nothing is answered
    try:
        await are_named(system, set(away))
    finally:
        for part in parts:
            part.resume()
    await all_are_ready(system)


async def test_signatures_are_taken_in_while_only_ingest_and_kafka_are_there(system: System) -> None:
    await system.start_petition("taken-in")
    others = [part_of(system, dependency) for dependency in ("redis", "smtp", "postgres")]
    await asyncio.gather(*(part.stop() for part in others))
    try:
        ids = await system.surge("taken-in", range(20))
    finally:
        await asyncio.gather(*(part.start() for part in others))
    assert len(set(ids)) == 20
    await all_are_ready(system)
    await system.is_proved("taken-in", 20)


@asynccontextmanager
async def started_with_nothing_there(system: System, log_dir: Path) -> AsyncIterator[list[ServiceProcess]]:
    """A further process of each service, told addresses where nobody answers."""
    nobody = f"127.0.0.1:{free_port()}"
    environment = {
        **system.stack.environment,
        "KAFKA_BOOTSTRAP_SERVERS": nobody,
        "REDIS_URL": f"redis://{nobody}/0",
        "POSTGRES_URL": f"postgresql://nobody:nothing@{nobody}/none",
        "SMTP_URL": f"smtp://{nobody}",
    }
    processes = [ServiceProcess(service, environment=environment, log_dir=log_dir) for service in SERVICES]
    for process in processes:
        await process.launch()
    try:
        yield processes
    finally:
        await asyncio.gather(*(process.kill() for process in processes))


async def test_services_that_start_before_their_parts_live_name_each_and_stop_when_asked(
    system: System, tmp_path: Path
) -> None:
    async with started_with_nothing_there(system, tmp_path) as processes:

        async def names_all(process: ServiceProcess) -> bool:
            try:
                answer = await system.http.get(f"{process.url}/readyz", timeout=30)
            except httpx.ConnectError:
                assert process.running, process.describe_end()
                return False
            wrong = {name for name, said in answer.json()["checks"].items() if said != "ok"}
            return answer.status_code == 503 and wrong >= NEEDS[process.service]

        async def all_name_all() -> bool:
            return all(await asyncio.gather(*(names_all(process) for process in processes)))

        await eventually(all_name_all, "each names all that it needs")
        for process in processes:
            assert (await system.http.get(f"{process.url}/livez")).status_code == 200
            assert (await system.http.get(f"{process.url}/metrics")).status_code == 200
        assert await asyncio.gather(*(process.stop() for process in processes)) == [0, 0, 0, 0]
