"""Whether a service is ready: what it needs, what it does without for a while, and what of all that is away.

`/readyz` answers 503 only where a load balancer should send its requests elsewhere. A part that all instances share and
that a service's public work does without is named, and the answer stays 200: taking every instance away helps nobody.
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
"""A dependency that has not answered by then is away as far as a load balancer is concerned."""

LOOK_SECONDS: Final = 5.0
"""How often a process asks itself whether it is ready, for the metric: as often as Prometheus looks."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work stands still, and what other checks are about may be why.

    Attributes:
        what: What stands still, in a few words.
        on: The names of the checks of all that this work needs. Those that fail are named.
    """

    what: str
    on: tuple[str, ...]

    def said(self, away: set[str]) -> str:
        """In words, given the checks that fail."""
        causes = [name for name in self.on if name in away]
        if not causes:
            return self.what
        *others, last = causes
        return f"waiting for {', '.join(others)}{' and ' if others else ''}{last}: {self.what}"


Check = Callable[[], Awaitable[str | Waiting | None]]
"""A readiness check: None when all is well, else what is wrong, in a few words."""


class Readiness:
    """The checks of one service, and what they last said, as metrics.

    Each check is named after what is away when it fails, not after who noticed.

    Args:
        needed: Checks of what the service cannot do its public work without.
        done_without: Checks of what it can do without for a while.
        registry: Where the metric goes.
    """

    def __init__(
        self, needed: Mapping[str, Check], done_without: Mapping[str, Check], registry: CollectorRegistry
    ) -> None:
        self._needed, self._checks = frozenset(needed), {**needed, **done_without}
        self._checking: dict[str, asyncio.Future[str | Waiting | None]] = {}
        # A load balancer that follows /readyz sends nothing to a service that is not ready: then no count of refusals
        # rises, and only this tells.
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
            check.set(1)  # until the first look

    async def look(self) -> dict[str, str]:
        """The result of every check: ``ok`` or what is wrong."""
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
        """``ready``: all is well. ``degraded``: ready, with something away. ``not ready``: without what it needs."""
        wrong = {name for name, said in results.items() if said != OK}
        if wrong & self._needed:
            return "not ready"
        return "degraded" if wrong else "ready"

    async def _checked(self, name: str) -> str | Waiting:
        # A dependency that hangs can make its driver hang even when it is cancelled: asyncpg then waits for the server's
        # leave. So nothing here waits for that end, and whoever asks meanwhile does not start another check to hang.
        running = self._checking.get(name)
        if running is None or running.done():
            running = self._checking[name] = asyncio.ensure_future(self._checks[name]())
            running.add_done_callback(_note)
        done, _ = await asyncio.wait({running}, timeout=_CHECK_SECONDS)
        if not done:
            running.cancel()
        if not done or running.cancelled():
            return f"no answer within {_CHECK_SECONDS:g} s"
        if error := running.exception():  # whatever a driver raises: the dependency does not answer
            return f"away: {why(error)}"
        return running.result() or OK


def _note(check: asyncio.Future[str | Waiting | None]) -> None:
    """Look at how a check ended, or asyncio would report an exception that came after the answer was given."""
    if not check.cancelled():
        check.exception()
