"""Waiting ends when everything is there, and says what is missing when it does not come."""

from collections import Counter
from typing import Any, cast

import pytest

from deploy.demo.watching import quiet
from deploy.demo.watching.observed import Observed
from deploy.demo.watching.quiet import wait_for_quiet
from deploy.demo.watching.watch import Watch
from tests.unit.deploy.demo.perfect import SURGE, perfect_observation, perfect_progress


class Stage:
    """A stand-in for `Watch` that shows one observation after the other; the last one stays."""

    def __init__(self, *observations: Observed) -> None:
        self._coming = list(observations)
        self._now = observations[0]

    async def outcomes(self) -> Counter[tuple[str, str, str]]:
        self._now = self._coming.pop(0) if len(self._coming) > 1 else self._coming[0]
        return self._now.outcomes

    async def tallies(self) -> Any:
        return self._now.tallies

    async def mails(self) -> Any:
        return self._now.mails

    def milestones(self) -> Counter[tuple[str, int]]:
        return self._now.milestones

    @property
    def dead_letters(self) -> int:
        return len(self._now.dead_letters)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(quiet, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(quiet, "STUCK_SECONDS", 0.05)


async def wait(*observations: Observed) -> list[str]:
    return await wait_for_quiet(cast("Watch", Stage(*observations)), SURGE.petitions, perfect_progress())


async def test_nothing_is_missing_once_everything_has_come() -> None:
    late = perfect_observation(mails=[])
    assert await wait(late, late, late, perfect_observation()) == []


async def test_too_much_of_something_does_not_look_like_not_enough() -> None:
    outcomes = perfect_observation().outcomes + Counter({("lake-evening-ferry", "duplicate", "already_signed"): 5})
    assert await wait(perfect_observation(outcomes=outcomes)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mails": []}, "mail to mayor@quillmere.example about"),
        ({"dead_letters": []}, "dead letters: 0 of 40"),
        ({"milestones": Counter()}, "milestone 10 of lake-evening-ferry announced"),
        (
            {"tallies": {p.petition_id: 0 for p in SURGE.petitions.all}},
            "verified signatures of lake-evening-ferry counted",
        ),
        ({"outcomes": Counter()}, "accepted signatures decided: 0 of"),
    ],
)
async def test_what_does_not_come_is_named(changes: dict[str, Any], says: str) -> None:
    missing = await wait(perfect_observation(**changes))
    assert any(says in line for line in missing), missing
