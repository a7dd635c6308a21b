"""Wrong clocks: libfaketime sets the services' wall clock by a file.

Only the wall clock changes. Monotonic time, which timers and time limits use, stays right, as when a real machine's clock is
set. PostgreSQL, Valkey and Kafka keep the true time: of several machines, one is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psutil

SEEN_AFTER_SECONDS: Final = 1.1
"""Seconds that a process may take to notice a change of the file."""


def _library() -> Path:
    """The compiled library in the Python package, which is not imported: it would look for its own use of the library."""
    package = find_spec("libfaketime")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


def faketime_environment(clock: Path) -> dict[str, str]:
    """The environment that makes a process use `clock`, a file that is created here, with the right time.

    It costs 40 ns per reading of the clock, and one reading of the file a second.
    """
    set_clock(clock, 0)
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "0",  # read anew in every second; without the variable, every ten
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",  # leave the times of files alone
    }


def set_clock(clock: Path, seconds: int) -> None:
    """Set the clocks of all processes that use `clock` off by so many seconds."""
    clock.parent.mkdir(parents=True, exist_ok=True)
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n", encoding="ascii")
    new.replace(clock)  # atomically: half a line would be another time


def remove_leftovers() -> None:
    """Remove libfaketime's two small files in shared memory of every killed process."""
    for memory in Path("/dev/shm").glob("faketime_shm_[0-9]*"):
        pid = memory.name.rpartition("_")[2]
        if not psutil.pid_exists(int(pid)):
            memory.unlink(missing_ok=True)
            # Last: a new process with this number that finds the semaphore does without both; one that finds only the
            # memory does not start.
            memory.with_name(f"sem.faketime_sem_{pid}").unlink(missing_ok=True)


@contextmanager
def clock_wrong_by(clock: Path, seconds: int) -> Iterator[None]:
    """Make the clocks wrong while the body runs."""
    set_clock(clock, seconds)
    try:
        yield
    finally:
        set_clock(clock, 0)
