"""The time limit that all requests share."""

import asyncio

import pytest

from services.ingest.web import deadline as deadline_module
from services.ingest.web.deadline import Deadline


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_module, "_LOOK_SECONDS", 0.01)


async def inside(deadline: Deadline, seconds: float) -> str:
    try:
        with deadline:
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "late"
    return "in time"


async def test_who_is_inside_for_too_long_is_ended_and_the_others_are_not() -> None:
    deadline = Deadline(0.1)
    assert await asyncio.gather(inside(deadline, 30), inside(deadline, 0), inside(deadline, 30)) == [
        "late",
        "in time",
        "late",
    ]


async def test_a_task_goes_on_after_its_deadline() -> None:
    deadline = Deadline(0.02)
    assert await inside(deadline, 30) == "late"
    await asyncio.sleep(0.05)  # nothing is cancelled after this
    assert await inside(deadline, 0) == "in time"


async def test_it_is_used_again_and_again() -> None:
    deadline = Deadline(1)
    assert [await inside(deadline, 0.02) for _ in range(5)] == ["in time"] * 5
    assert await inside(deadline, 30) == "late"


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    task = asyncio.create_task(inside(Deadline(10), 30))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_is_left_alone() -> None:
    deadline = Deadline(10)
    with pytest.raises(ValueError, match="mine"), deadline:
        raise ValueError("mine")
