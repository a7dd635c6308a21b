"""The live view: a table that follows the surge, or a line every few seconds without a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.demo.plan.petitions import Petitions
from deploy.demo.sending.progress import Progress
from deploy.demo.watching.observed import Outcomes
from deploy.demo.watching.watch import Watch

_LOOK_SECONDS: Final = 0.5
_OUTCOMES_SECONDS: Final = 1.0
"""Counting all signatures by state takes PostgreSQL up to 50 ms; the table need not cost the surge more than that."""
_LINE_SECONDS: Final = 3.0


@dataclass(slots=True)
class Seen:
    """What the view last saw."""

    counts: dict[str, int] = field(default_factory=dict)
    """Supporters by petition, from tally."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    lag: dict[str, int] = field(default_factory=dict)
    dead_letters: int = 0
    rate: float = 0.0
    """Counted signatures per second, since the look before."""
    at: float = 0.0


@asynccontextmanager
async def live_view(console: Console, watch: Watch, petitions: Petitions, progress: Progress) -> AsyncIterator[None]:
    """Show what happens as long as the body runs, and how it ended."""
    view = _LiveView(console, watch, petitions, progress)
    task = asyncio.create_task(view.table() if console.is_terminal else view.lines())
    try:
        yield
        view.over.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _LiveView:
    def __init__(self, console: Console, watch: Watch, petitions: Petitions, progress: Progress) -> None:
        self._console, self._watch, self._petitions, self._progress = console, watch, petitions, progress
        self._seen = Seen(at=time.monotonic())
        self.over = asyncio.Event()

    async def table(self) -> None:
        # Drawn when there is something new to show: a refreshing thread would take CPU from the surge.
        with Live(console=self._console, auto_refresh=False) as live:
            async for _ in self._looks(_LOOK_SECONDS):
                live.update(table(self._petitions, self._progress, self._seen), refresh=True)

    async def lines(self) -> None:
        async for _ in self._looks(_LINE_SECONDS):
            self._console.print(line(self._progress, self._seen), markup=False, highlight=False, soft_wrap=True)

    async def _looks(self, every: float) -> AsyncIterator[None]:
        """A look at the system `every` so many seconds, and one more when all is over."""
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), every)
            await _look(self._watch, self._petitions, self._seen)
            yield


async def _look(watch: Watch, petitions: Petitions, seen: Seen) -> None:
    organisation = await watch.organisation()
    now = time.monotonic()
    before = sum(seen.counts.values())
    seen.counts = {body["petition_id"]: body["count"] for body in organisation["petitions"]}
    seen.rate = (sum(seen.counts.values()) - before) / max(now - seen.at, 0.001)
    if now // _OUTCOMES_SECONDS != seen.at // _OUTCOMES_SECONDS:
        seen.outcomes, seen.lag = await watch.outcomes(), await watch.lag()
    seen.dead_letters, seen.at = watch.dead_letters, now


def table(petitions: Petitions, progress: Progress, seen: Seen) -> RenderableType:
    """The table of petitions, and what came of the submissions below it."""
    rows = Table(title=petitions.open[0].state.organisation.name, title_justify="left", box=box.SIMPLE_HEAD)
    rows.add_column("Petition", no_wrap=True)
    rows.add_column("sent", justify="right")
    rows.add_column("verified", justify="right")
    rows.add_column("supporters", justify="right", style="bold")
    rows.add_column("", width=16)
    for petition in petitions.open:
        name = petition.petition_id
        count = seen.counts.get(name, 0)
        rows.add_row(
            petition.state.title,
            f"{progress.answered[name]:,}",
            f"{seen.outcomes[name, 'verified', '']:,}",
            f"{count:,}",
            ProgressBar(total=petition.supporters, completed=count, width=16),
        )
    rows.add_section()
    rows.add_row(
        "All",
        f"{sum(progress.answered[petition.petition_id] for petition in petitions.open):,}",
        f"{_decided(seen, 'verified'):,}",
        f"{sum(seen.counts.values()):,}",
        Text(f"{seen.rate:,.0f} a second"),
    )
    return Group(rows, Text(line(progress, seen), style="dim"))


def line(progress: Progress, seen: Seen) -> str:
    """Everything that moves, in one line."""
    waiting = ", ".join(f"{service} {records:,}" for service, records in seen.lag.items())
    return (
        f"{time.monotonic() - progress.started:5.1f} s   sent {progress.answered.total() + progress.poison:,}"
        f"   counted {sum(seen.counts.values()):,} ({seen.rate:,.0f}/s)"
        f"   duplicate {_decided(seen, 'duplicate'):,}   rejected {_decided(seen, 'rejected'):,}"
        f"   refused {progress.refused.total():,}   dead letters {seen.dead_letters:,}"
        f"   lag: {waiting or 'none yet'}"
    )


def _decided(seen: Seen, state: str) -> int:
    return sum(number for (_, this, _), number in seen.outcomes.items() if this == state)
