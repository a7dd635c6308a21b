"""Arms failpoints in running services; see `shared.runtime.failpoints`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from shared.runtime.failpoints import POINTS, VARIABLE

_POLL_SECONDS: Final = 0.02


class Failpoints:
    """The directory that services look into.

    Args:
        directory: is created; only this object may write to it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment with which a service's points can be armed."""
        return {VARIABLE: str(self.directory)}

    def arm(self, name: str, action: str, *, service: str | None = None) -> None:
        """Let the next process that reaches the point execute `action`. Earlier hits are forgotten.

        Args:
            name: one of `shared.runtime.failpoints.POINTS`.
            action: ``kill``, ``stop``, ``sleep 2.5``, ``block 2.5``, ``fail`` or ``raise``.
            service: only a process of this service; for points in code that several services share.
        """
        file = self._file(name, service)
        for old in self.directory.glob(f"{file.name}.hit.*"):
            old.unlink()
        new = self.directory / f".{file.name}.new"
        new.write_text(f"{action}\n", encoding="utf-8")
        new.replace(file)  # atomically: a process must not claim an empty file

    def disarm(self, name: str, *, service: str | None = None) -> bool:
        """Disarm the point. False: a process has already claimed the action, perhaps just now."""
        try:
            self._file(name, service).unlink()
        except FileNotFoundError:
            return False
        return True

    def disarm_all(self) -> None:
        """Disarm all points, and forget all hits."""
        for file in self.directory.iterdir():
            file.unlink(missing_ok=True)

    def hits(self, name: str, *, service: str | None = None) -> list[int]:
        """The pids of the processes that have reached the point since it was armed."""
        claimed = self.directory.glob(f"{self._file(name, service).name}.hit.*")
        return sorted(int(file.name.rpartition(".")[2]) for file in claimed)

    async def hit(self, name: str, *, service: str | None = None, within: float) -> int | None:
        """Wait until a process reaches the point. Returns its pid, or None if none has after `within` seconds."""
        deadline = time.monotonic() + within
        while not (pids := self.hits(name, service=service)):
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return pids[0]

    def _file(self, name: str, service: str | None) -> Path:
        if name not in POINTS:
            raise KeyError(f"there is no failpoint {name}")
        return self.directory / (name if service is None else f"{name}@{service}")
