"""Reads the services' logs of a run: a fault of the run must explain each warning and error, and nothing may be personal.

Every line at level warning or above needs a rule that says which parts must have been affected for the line to be expected. A
line without a rule, a line that is not JSON, and a traceback without a rule are violations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.faults.judging.log_rules import explained, explained_text
from tests.faults.judging.personal import PersonalData

if TYPE_CHECKING:
    from tests.faults.sending.surge import Surge
    from tests.faults.world import World

_SURPRISING: Final = ("warning", "error", "critical")
_SERVICES: Final = ("ingest", "verify", "tally", "notify")
_MOST_LETTERS: Final = 600

Mark = Mapping[Path, int]
"""How far each log had been written."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log."""

    file: Path
    text: str

    @property
    def service(self) -> str:
        """The service that wrote it."""
        return self.file.stem.partition("-")[0]

    def fields(self) -> dict[str, Any] | None:
        """The line as JSON; None when it is not an object."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def mark(world: World) -> Mark:
    """The present ends of the logs."""
    return {file: file.stat().st_size for file in _files(world)}


async def unexplained(world: World, begin: Mark, surge: Surge, *, touched: frozenset[str]) -> list[str]:
    """Lines since `begin` that no fault explains, each kind once, with its number.

    Args:
        world: whose services.
        begin: the ends of the logs when the run began.
        surge: its people may not be named.
        touched: what the faults of the run affected.
    """
    return findings(_lines(world, begin), PersonalData.of(world, surge), touched)


def findings(lines: Iterator[Line], personal: PersonalData, touched: frozenset[str]) -> list[str]:
    """The same for given lines."""
    found: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for line in lines:
        for what in _wrong(line, personal, touched):
            found[what] += 1
            examples.setdefault(what, line.text)
    return [f"{what}: {number} times, first: {_shortened(examples[what])}" for what, number in sorted(found.items())]


def _wrong(line: Line, personal: PersonalData, touched: frozenset[str]) -> Iterator[str]:
    fields = line.fields()
    text = line.text if fields is None else json.dumps(fields, ensure_ascii=False)
    if what := personal.find(text):
        yield f"{what} in the log of {line.service}"
    if fields is None:
        if line.text.strip() and not explained_text(line.text):
            yield f"a line of {line.service} that is no JSON"
        return
    level = str(fields.get("level", "error"))
    surprising = level in _SURPRISING or "exception" in fields
    if surprising and not explained(line.service, fields, touched):
        yield f"unexplained {level} of {line.service}: {_name(fields)}"


def _name(fields: Mapping[str, Any]) -> str:
    cause = fields.get("cause")
    name = str(fields.get("event", "?"))[:200]
    return f"{name} ({cause})" if cause else name


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS // 2]} … {text[-_MOST_LETTERS // 2 :]}"


def _files(world: World) -> list[Path]:
    return sorted(file for file in world.logs.glob("*.log") if file.stem.partition("-")[0] in _SERVICES)


def _lines(world: World, begin: Mark) -> Iterator[Line]:
    for file in _files(world):
        with file.open("rb") as log:
            log.seek(begin.get(file, 0))
            for raw in log:
                yield Line(file, raw.decode("utf-8", "replace").rstrip("\n"))
