"""The demo's report: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.demo.checks import STORED, Check, outcome_totals
from deploy.demo.plan.petitions import Petitions
from deploy.demo.plan.surge import Surge
from deploy.demo.sending.progress import Progress
from deploy.demo.watching.observed import Observed
from deploy.local.state import StackState


@dataclass(slots=True)
class Report:
    """The result of the demo. Parts that were not reached are empty."""

    broker: str
    seconds: float = 0.0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    """By service and part; ``demo`` is this process: it makes the load and looks at everything."""
    checks: Sequence[Check] = ()
    missing: Sequence[str] = ()
    """What was still missing when the demo stopped waiting."""
    progress: Progress | None = None
    observed: Observed | None = None

    @property
    def ok(self) -> bool:
        """Whether all checks passed. Without checks it is False."""
        return bool(self.checks) and not self.missing and all(check.ok for check in self.checks)

    def as_json(self, surge: Surge) -> str:
        """The object that `groundswell demo --json` prints as its last line."""
        return json.dumps(
            {
                "ok": self.ok,
                "broker": self.broker,
                "supporters": self.observed.supporters if self.observed else 0,
                "petitions": self._petitions(surge.petitions),
                "sent": self.progress.answered.total() + self.progress.poison if self.progress else 0,
                "outcomes": self._outcomes(),
                "milestones": self.observed.milestones.total() if self.observed else 0,
                "mails": len(self.observed.mails) if self.observed else 0,
                "drift": self.observed.drift if self.observed else None,
                "seconds": round(self.seconds, 1),
                "cpu_seconds": {name: round(seconds, 1) for name, seconds in self.cpu_seconds.items()},
            }
        )

    def _outcomes(self) -> dict[str, int]:
        if self.progress is None or self.observed is None:
            return dict.fromkeys((*STORED, "refused", "dead_lettered"), 0)
        return outcome_totals(self.progress, self.observed)

    def _petitions(self, petitions: Petitions) -> dict[str, Any]:
        found = self.observed
        return {
            petition.petition_id: {
                "expected": petition.supporters,
                "verified": found.outcomes[petition.petition_id, "verified", ""] if found else 0,
                "tally": found.tallies[petition.petition_id] if found else 0,
            }
            for petition in petitions.open
        }


def print_checks(console: Console, report: Report) -> None:
    """Print the table of expected and observed figures, and every mismatch by name."""
    table = Table(title="Expected and found", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("found", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    group = ""
    for check in report.checks:
        if check.group != group:
            group = check.group
            table.add_section()
            table.add_row(Text(group.capitalize(), style="bold"))
        mark = Text("ok", style="green") if check.ok else Text("WRONG", style="bold red")
        table.add_row(f"  {check.name}", f"{check.expected:,}", f"{check.got:,}", mark)
    if report.checks:
        console.print(table)
    for missing in report.missing:
        _say_wrong(console, f"still missing: {missing}")
    for check in report.checks:
        if not check.ok:
            _say_wrong(console, f"wrong: {check.group}, {check.name}: {check.got:,} instead of {check.expected:,}")
            for line in check.wrong:
                _say_wrong(console, f"       {line}")


def _say_wrong(console: Console, line: str) -> None:
    console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def print_facts(console: Console, report: Report) -> None:
    """Print how the surge was sent, how long it took, and what it cost."""
    progress = report.progress
    if progress is not None:
        answered = progress.answered.total()
        console.print(
            f"{answered:,} submissions in {progress.seconds:.1f} s ({answered / max(progress.seconds, 0.001):,.0f} a"
            f" second): {progress.singles:,} one by one, {answered - progress.singles:,} in batches;"
            f" {progress.retries:,} of them sent twice with the same Idempotency-Key, {progress.put_off:,} put off and"
            f" sent again; {progress.poison:,} poison records between them.",
            highlight=False,
            soft_wrap=True,
        )
    costs = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.cpu_seconds.items())
    console.print(
        f"Took {report.seconds:.1f} s in all, on the {report.broker} broker. CPU seconds: {costs}.",
        highlight=False,
        soft_wrap=True,
    )


def where_to_look(state: StackState, petitions: Petitions) -> Table:
    """Return a table of the addresses of a stack that is kept after the demo."""
    table = Table(title="Where to look", title_justify="left", show_header=False, box=box.SIMPLE, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Organisation", f"{state.tally_url}/o/{petitions.organisation_slug}")
    for petition in petitions.open:
        table.add_row("Petition", f"{state.tally_url}/p/{petition.petition_id}")
    table.add_row("Mailbox", f"{state.mailbox_url}/")
    for name, url in (
        ("ingest", state.ingest_url),
        ("verify", state.verify_url),
        ("tally", state.tally_url),
        ("notify", state.notify_url),
    ):
        table.add_row(name, f"{url}/metrics")
    return table
