"""Readiness: the checks of what a service needs, and of what it can do without for a while.

`/readyz` answers 503 only if a load balancer should send requests elsewhere. If a dependency is away that all instances
share and that the service's public work does not need, `/readyz` names it and answers 200 (degraded): taking every instance
out of the load balancer would help nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Gauge

from shared.runtime.unreachable import why

OK: Final = "ok"

Status = Literal["ready", "degraded", "not ready"]

_CHECK_SECONDS = 2.0
"""A dependency that has not answered within this time counts as away."""

LOOK_SECONDS: Final = 5.0
"""How often a process checks its own readiness for the metric: as often as Prometheus scrapes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A check's result: work makes no progress, possibly because of what other checks find.

    Attributes:
        what: What makes no progress, in a few words.
        on: The names of the checks of everything that this work needs. The result names those that fail.
    """

    what: str
    on: tuple[str, ...]

    def said(self, away: set[str]) -> str:
        """Return the result as text, given the names of the failing checks."""
        causes = [name for name in self.on if name in away]
        if not causes:
            return self.what
        *others, last = causes
        return f"waiting for {', '.join(others)}{' and ' if others else ''}{last}: {self.what}"


Check = Callable[[], Awaitable[str | Waiting | None]]
"""A readiness check: returns None if all is well, otherwise what is wrong, in a few words."""


class Readiness:
    """The checks of one service, and their last results as a metric.

    A check is named after the dependency that is away when it fails, not after the part that notices.

    Args:
        needed: Checks of what the service needs for its public work.
        done_without: Checks of what it can do without for a while.
        registry: The registry of the metric.
    """

    def __init__(
        self, needed: Mapping[str, Check], done_without: Mapping[str, Check], registry: CollectorRegistry
    ) -> None:
        self._needed, self._checks = frozenset(needed), {**needed, **done_without}
        self._checking: dict[str, asyncio.Future[str | Waiting | None]] = {}
        # A load balancer that follows /readyz sends nothing to a service that is not ready: then no counter of refusals
        # rises, and only this metric shows it.
        failing = Gauge(
            "groundswell_readiness_failing",
            "1 while the readiness check fails, by check; needed=no: the service stays ready without it",
            ["check", "needed"],
            registry=registry,
        )
        self._failing = {
            name: failing.labels(check=name, needed="yes" if name in self._needed else "no") for name in self._checks
        }
        for check in self._failing.values():
            check.set(1)  # until the first check

    async def look(self) -> dict[str, str]:
        """Run all checks and return their results by name: ``ok`` or what is wrong."""
        names = list(self._checks)
        found = await asyncio.gather(*(self._checked(name) for name in names))
        away = {name for name, said in zip(names, found, strict=True) if isinstance(said, str) and said != OK}
        results = {
            name: said.said(away) if isinstance(said, Waiting) else said
            for name, said in zip(names, found, strict=True)
        }
        for name, said in results.items():
            self._failing[name].set(said != OK)
        return results

    def status(self, results: Mapping[str, str]) -> Status:
        """Return ``ready`` if all is well, ``degraded`` if only something is away that the service can do without, otherwise
        ``not ready``."""
        wrong = {name for name, said in results.items() if said != OK}
        if wrong & self._needed:
            return "not ready"
        return "degraded" if wrong else "ready"

    async def _checked(self, name: str) -> str | Waiting:
        # If a dependency hangs, its driver may hang even when cancelled: asyncpg then waits for the server. So the
        # cancellation is not awaited, and further requests join the running check instead of starting another.
        running = self._checking.get(name)
        if running is None or running.done():
            running = self._checking[name] = asyncio.ensure_future(self._checks[name]())
            running.add_done_callback(_note)
        done, _ = await asyncio.wait({running}, timeout=_CHECK_SECONDS)
        if not done:
            running.cancel()
        if not done or running.cancelled():
            return f"no answer within {_CHECK_SECONDS:g} s"
        if error := running.exception():  # any exception of a driver means that the dependency does not answer
            return f"away: {why(error)}"
        return running.result() or OK


def _note(check: asyncio.Future[str | Waiting | None]) -> None:
    """Retrieve a check's exception: asyncio would log one that is raised after the timeout as never retrieved."""
    if not check.cancelled():
        check.exception()
