"""/livez and /readyz: always alive, ready only with everything it needs, and naming what is missing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.local.parts.ports import free_port
from deploy.local.parts.process import Process
from deploy.local.parts.service import SERVICES, ServiceName, ServiceProcess
from tests.support.system import System
from tests.support.waiting import eventually

NEEDS: dict[ServiceName, set[str]] = {
    "ingest": {"kafka"},
    "verify": {"kafka", "postgres"},
    "tally": set(),
    "notify": {"kafka", "postgres", "smtp"},
}
"""Parts without which a service is not ready."""

DOES_WITHOUT: dict[ServiceName, set[str]] = {
    "ingest": {"postgres"},  # only status and commands need it
    "verify": set(),
    "tally": {"kafka", "redis", "postgres"},  # it shows pages, and the counts as they were announced
    "notify": set(),
}
"""Parts that a service names while they are away, and is ready without."""

OWN: dict[ServiceName, set[str]] = {
    "ingest": {"catalogue", "clock"},
    "verify": {"catalogue", "consumer"},
    "tally": {"catalogue", "consumer"},
    "notify": {"catalogue", "consumer"},
}
"""Checks of what a service has to do itself."""


def part_of(system: System, dependency: str) -> Process:
    part = {
        "kafka": system.stack.kafka,
        "postgres": system.stack.postgres,
        "redis": system.stack.valkey,
        "smtp": system.stack.mailbox,
    }[dependency]
    assert part is not None
    return part


@dataclass(frozen=True)
class Said:
    """The answer of /readyz: the code, the status, and the failing checks by name."""

    code: int
    status: str
    wrong: dict[str, str]

    def is_what(self, service: ServiceName, away: set[str]) -> bool:
        """Whether this is the expected answer of `service` while `away` is away: exactly these checks fail.

        Its consumer may or may not be held already. If it is, the check says what it waits for.
        """
        wrong = dict(self.wrong)
        waiting = wrong.pop("consumer", None)
        if waiting is not None:
            named = re.split(", | and ", waiting.removeprefix("waiting for ").partition(":")[0])
            if not set(named) <= away:
                return False
        needs = NEEDS[service] & away
        expected = (503, "not ready") if needs else (200, "degraded") if wrong else (200, "ready")
        return set(wrong) == (NEEDS[service] | DOES_WITHOUT[service]) & away and (self.code, self.status) == expected


async def readiness(system: System, service: ServiceName) -> Said:
    answer = await system.http.get(f"{system.stack.services[service][0].url}/readyz", timeout=30)
    body = answer.json()
    assert body["service"] == service
    return Said(
        answer.status_code, body["status"], {name: said for name, said in body["checks"].items() if said != "ok"}
    )


async def lives(system: System, service: ServiceName) -> bool:
    answer = await system.http.get(f"{system.stack.services[service][0].url}/livez", timeout=30)
    return answer.status_code == 200


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_has_all_it_needs_is_ready(service: ServiceName, system: System) -> None:
    answer = await system.http.get(f"{system.stack.services[service][0].url}/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert set(answer.json()["checks"]) == NEEDS[service] | DOES_WITHOUT[service] | OWN[service]
    assert await lives(system, service)


async def are_named(system: System, away: set[str]) -> None:
    """Wait until each service gives the expected answer while `away` is away; all live."""

    async def as_expected() -> bool:
        assert all(await asyncio.gather(*(lives(system, service) for service in SERVICES)))
        said = await asyncio.gather(*(readiness(system, service) for service in SERVICES))
        return all(one.is_what(service, away) for service, one in zip(SERVICES, said, strict=True))

    await eventually(as_expected, f"all that use {away}, and only they, say that it is away")


async def all_are_ready(system: System) -> None:
    async def ready() -> bool:
        said = await asyncio.gather(*(readiness(system, service) for service in SERVICES))
        return said == [Said(200, "ready", {})] * len(SERVICES)

    await eventually(ready, "all are ready again")


@asynccontextmanager
async def dead(system: System, away: list[str]) -> AsyncIterator[None]:
    """These parts are killed, and started again at the end."""
    parts = [part_of(system, dependency) for dependency in away]
    await asyncio.gather(*(part.kill() for part in parts))
    try:
        yield
    finally:
        await asyncio.gather(*(part.start() for part in parts))
    await all_are_ready(system)


@asynccontextmanager
async def frozen(system: System, away: list[str]) -> AsyncIterator[None]:
    """Freeze these parts: their connections stay open, without answers. Resume them at the end."""
    parts = [part_of(system, dependency) for dependency in away]
    for part in parts:
        part.pause()
    try:
        yield
    finally:
        for part in parts:
            part.resume()
    await all_are_ready(system)


@pytest.mark.parametrize("away", [["redis"], ["postgres"], ["smtp"], ["redis", "postgres", "smtp"]], ids=" and ".join)
async def test_parts_that_are_dead_are_named_by_those_that_use_them(away: list[str], system: System) -> None:
    async with dead(system, away):
        await are_named(system, set(away))


async def test_a_kafka_that_is_dead_is_named_by_all(needs_apache: None, system: System) -> None:
    """Not on the embedded broker, which forgets its topics."""
    async with dead(system, ["kafka"]):
        await are_named(system, {"kafka"})


@pytest.mark.parametrize(
    "away",
    [["redis"], ["postgres"], ["smtp"], ["kafka"], ["redis", "postgres", "smtp", "kafka"]],
    ids=" and ".join,
)
async def test_parts_that_hang_are_named_by_those_that_use_them(away: list[str], system: System) -> None:
    async with frozen(system, away):
        await are_named(system, set(away))


@pytest.mark.parametrize(("away", "service"), [("redis", "tally"), ("postgres", "verify")])
async def test_work_that_stands_still_is_not_put_down_to_kafka(away: str, service: ServiceName, system: System) -> None:
    """A batch is being processed when the part stops answering: the consumer waits for the part, and Kafka answers."""
    petition = f"held-by-{away}-in-{service}"
    await system.start_petition(petition)
    await system.surge(petition, range(1))
    await system.counts_to(petition, 1)
    async with frozen(system, [away]):
        await system.surge(petition, range(1, 21))

        async def waits() -> bool:
            said = await readiness(system, service)
            assert "kafka" not in said.wrong
            return said.wrong.get("consumer", "").startswith(f"waiting for {away}: batch held")

        await eventually(waits, f"{service} says that it waits for {away}")
        assert (await readiness(system, service)).is_what(service, {away})
    await system.counts_to(petition, 21)


async def test_tally_shows_pages_counts_and_streams_while_postgres_is_away(system: System) -> None:
    await system.start_petition("shown-without-postgres")
    await system.surge("shown-without-postgres", range(3))
    await system.counts_to("shown-without-postgres", 3)
    async with dead(system, ["postgres"]):
        await are_named(system, {"postgres"})
        for path in (
            "/p/shown-without-postgres",
            "/o/harbour-friends",
            "/v1/petitions/shown-without-postgres/tally",
            "/v1/organisations/harbour-friends",
        ):
            assert (await system.http.get(f"{system.tally}{path}")).status_code == 200, path
        url = f"{system.tally}/v1/petitions/shown-without-postgres/tally/stream"
        async with system.http.stream("GET", url) as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    assert json.loads(line.removeprefix("data:"))["count"] == 3
                    break


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
    """A further process of each service, with addresses that do not answer."""
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
            return answer.status_code == 503 and wrong >= NEEDS[process.service] | DOES_WITHOUT[process.service] | {
                "catalogue"
            }

        async def all_name_all() -> bool:
            return all(await asyncio.gather(*(names_all(process) for process in processes)))

        await eventually(all_name_all, "each names all that it needs")
        for process in processes:
            assert (await system.http.get(f"{process.url}/livez")).status_code == 200
            assert (await system.http.get(f"{process.url}/metrics")).status_code == 200
        assert await asyncio.gather(*(process.stop() for process in processes)) == [0, 0, 0, 0]
