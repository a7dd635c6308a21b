"""A campaign's output for people: a progress bar, a line per run, tables at the end."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults.result import CampaignResult, RunResult
from tests.faults.schedule import RunPlan


class Report:
    """Writes to standard error; standard output is for the result."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[run]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", run="", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        """A message that is not part of a run."""
        self._progress.reset(self._task, description=escape(text), run="", total=None)

    def run_begins(self, plan: RunPlan) -> None:
        """A run begins."""
        self._progress.reset(self._task, description="", run=f"run {plan.number}", total=plan.signatures)

    def progress(self, stage: str, done: int, of: int) -> None:
        """How far the run is."""
        self._progress.update(self._task, description=escape(stage), completed=done, total=of)

    def run_passed(self, result: RunResult) -> None:
        """A run passed."""
        self._console.print(f"run {result.number}: [green]ok[/], {_figures(result)}", highlight=False)
        self._not_played(result)

    def run_failed(self, plan: RunPlan, result: RunResult, kept: Path) -> None:
        """A run failed: print what is wrong, what was played, and how to repeat it."""
        self._console.print(f"run {result.number}: [red]FAILED[/], {_figures(result)}", highlight=False)
        self._not_played(result)
        for violation in result.violations:
            self._console.print(f"  [red]{escape(violation)}[/]", highlight=False, soft_wrap=True)
        self._console.print("  schedule: " + ", ".join(f"{one.fault.kind} at {one.after:,}" for one in plan.faults))
        again = f"--seed {plan.seed} --first {plan.number} --runs 1 --signatures {plan.signatures}"
        self._console.print(f"  logs and timeline: {kept}\n  again: groundswell faults {again}", soft_wrap=True)

    def _not_played(self, result: RunResult) -> None:
        for kind, why in result.not_played:
            self._console.print(f"  [yellow]not played: {escape(f'{kind}: {why}')}[/]", highlight=False, soft_wrap=True)

    def summary(self, result: CampaignResult) -> None:
        """The tables at the end."""
        table = Table("fault", "times", "not played", "recovery p50 (s)", "max (s)", title="Faults")
        not_played = result.not_played
        for kind in sorted(result.faults.keys() | not_played.keys()):
            seconds = [taken for name, taken in result.recoveries if name == kind]
            row = (f"{median(seconds):.1f}", f"{max(seconds):.1f}") if seconds else ("-", "-")
            table.add_row(kind, str(result.faults[kind]), str(not_played[kind] or "-"), *row)
        self._console.print(table)


def last_line(result: CampaignResult) -> str:
    """The campaign in one line, for people."""
    numbers = (
        f"lost {result.total('lost')}, double {result.total('double')},"
        f" milestones double {result.total('milestones_double')}"
    )
    failed = sum(not run.ok for run in result.runs)
    missed = f"; NOT PLAYED: {', '.join(sorted(result.not_played))}" if result.not_played else ""
    verdict = "" if result.ok else f"; {failed} of {len(result.runs)} runs FAILED"
    return (
        f"{len(result.runs)} runs, {result.total('signatures'):,} signatures,"
        f" {result.faults.total()} faults of {len(result.faults)} kinds: {numbers}{verdict}{missed}"
    )


def _figures(result: RunResult) -> str:
    slowest = max((seconds for _, seconds in result.recoveries), default=0.0)
    window = f", {result.mail_window} mails repeated in the SMTP window" if result.mail_window else ""
    return (
        f"{result.signatures:,} signatures, {result.faults.total()} faults, slowest recovery {slowest:.1f} s{window},"
        f" {result.seconds:.0f} s"
    )
