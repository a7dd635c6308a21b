"""A service's readiness: every check gets its time, and none can take the others with it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry

from shared.runtime import background as shared_background
from shared.runtime import readiness as shared_readiness
from shared.runtime.background import background
from shared.runtime.readiness import Check, Waiting
from shared.runtime.settings import CommonSettings
from shared.service import Base, Service, new_registry


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_readiness, "_CHECK_SECONDS", 0.05)


def service_with(registry: CollectorRegistry | None = None, **checks: Check) -> Service:
    return Service(
        Base("verify", CommonSettings(), registry),
        port=0,
        parts=[],
        checks={name: check for name, check in checks.items() if not name.startswith("side_")},
        side_checks={name: check for name, check in checks.items() if name.startswith("side_")},
    )


async def fine() -> None:
    return None


async def test_what_is_wrong_is_said_by_the_dependencys_name() -> None:
    async def behind() -> str:
        return "3 records still to read"

    async def away() -> None:
        raise ConnectionRefusedError("127.0.0.1:5432 with its password")

    said = await service_with(kafka=fine, catalogue=behind, postgres=away).readiness.look()
    assert said == {"kafka": "ok", "catalogue": "3 records still to read", "postgres": "away: ConnectionRefusedError"}


async def test_work_that_stands_still_says_what_it_waits_for_and_nothing_else_that_is_away() -> None:
    there = False

    async def away() -> str | None:
        return None if there else "away"

    async def held() -> Waiting:
        return Waiting("batch held: TimeoutError", ("kafka", "redis", "postgres"))

    service = service_with(kafka=fine, redis=away, postgres=away, smtp=away, consumer=held)
    assert (await service.readiness.look())["consumer"] == "waiting for redis and postgres: batch held: TimeoutError"
    there = True
    assert (await service.readiness.look())["consumer"] == "batch held: TimeoutError"


@pytest.mark.parametrize(
    ("checks", "status", "code"),
    [
        ({"kafka": False, "side_redis": False}, "ready", 200),
        ({"kafka": False, "side_redis": True}, "degraded", 200),
        ({"kafka": True, "side_redis": False}, "not ready", 503),
        ({"kafka": True, "side_redis": True}, "not ready", 503),
    ],
)
async def test_a_balancer_takes_away_what_lacks_something_it_needs_and_nothing_else(
    checks: dict[str, bool], status: str, code: int
) -> None:
    async def away() -> str:
        return "away"

    service = service_with(**{name: away if is_away else fine for name, is_away in checks.items()})
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (code, status)
    assert answer.json()["checks"] == {name: "away" if is_away else "ok" for name, is_away in checks.items()}


async def test_a_dependency_that_hangs_even_when_cancelled_is_named_in_time_and_asked_once() -> None:
    asked, leave = 0, asyncio.Event()

    async def hangs() -> None:
        nonlocal asked
        asked += 1
        while not leave.is_set():  # as asyncpg does: it waits for the server's leave to cancel
            try:
                await leave.wait()
            except asyncio.CancelledError:
                continue

    service = service_with(kafka=fine, postgres=hangs)
    async with asyncio.timeout(60):
        for _ in range(3):
            assert await service.readiness.look() == {"kafka": "ok", "postgres": "no answer within 0.05 s"}
    assert asked == 1, "each one that hangs holds a connection"
    leave.set()
    await asyncio.sleep(0)
    assert await service.readiness.look() == {"kafka": "ok", "postgres": "ok"}
    assert asked == 2


async def test_those_who_ask_at_the_same_time_share_one_check() -> None:
    asked = 0

    async def slow() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)

    service = service_with(redis=slow)
    assert await asyncio.gather(*(service.readiness.look() for _ in range(5))) == [{"redis": "ok"}] * 5
    assert asked == 1


async def test_the_metrics_say_what_is_wrong_and_whether_the_service_is_ready_without_it() -> None:
    there = False

    async def comes_and_goes() -> str | None:
        return None if there else "away"

    registry = new_registry()
    service = service_with(registry, kafka=fine, redis=comes_and_goes, side_postgres=comes_and_goes)

    def failing(check: str, needed: str) -> float | None:
        return registry.get_sample_value("groundswell_readiness_failing", {"check": check, "needed": needed})

    assert failing("kafka", "yes") == 1, "not known to be well before the first look"
    await service.readiness.look()
    assert (failing("kafka", "yes"), failing("redis", "yes"), failing("side_postgres", "no")) == (0, 1, 1)
    there = True
    await service.readiness.look()
    assert (failing("kafka", "yes"), failing("redis", "yes"), failing("side_postgres", "no")) == (0, 0, 0)


async def test_background_work_ends_also_when_its_first_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_background, "_CANCEL_AGAIN_SECONDS", 0.01)
    lost = 0

    async def loses_one() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    async with asyncio.timeout(60), background(pytest.fail, loses_one(), loses_one()):
        await asyncio.sleep(0)
    assert lost == 1


async def test_background_work_that_has_ended_before_is_no_trouble() -> None:
    async def ends() -> None:
        await asyncio.sleep(0)

    async with asyncio.timeout(60), background(pytest.fail, ends()):
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60), background(pytest.fail):
        pass


async def test_a_stop_that_ended_in_time_leaves_nothing_that_would_end_the_process() -> None:
    service = service_with(kafka=fine)
    limit = service._stop_limit
    async with service.app.lifespan_context():
        limit.begin()
        assert limit._force is not None
        assert not limit._force.cancelled()
    assert limit._force.cancelled()
