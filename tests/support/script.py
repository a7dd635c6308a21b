"""A child process that a test writes as a Python script."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local.parts.process import Process


class Script(Process):
    """A Python script as a part; ready once it has called `ready()`. It has `os`, `signal`, `sys` and `time`.

    Attributes:
        script: What the next start runs.
    """

    start_seconds = 60.0

    def __init__(self, script: str, *, folder: Path, name: str = "script") -> None:
        super().__init__(name=name, log_file=folder / "logs" / f"{name}.log")
        self.script = script
        self._ready = folder / f"{name}.ready"

    @property
    def url(self) -> str:
        return ""

    @property
    def environment(self) -> dict[str, str]:
        return {}

    async def _prepare(self) -> None:
        self._ready.unlink(missing_ok=True)

    def _command(self) -> Sequence[str | Path]:
        prelude = f"import os, signal, sys, time; ready = lambda: open({str(self._ready)!r}, 'w')"
        return [sys.executable, "-c", f"{prelude}\n{self.script}"]

    async def _is_ready(self) -> bool:
        return self._ready.exists()
