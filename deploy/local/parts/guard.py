"""Ends the processes of a stack after the process that started them has ended in any way.

Runs as a separate script, outside the parent's process group, and imports the standard library only (it is started with
`python -I -S`, 15 ms and 8 MB). The parent writes one line per process to its standard input: `+123` to watch process
group 123, `-123` after that one has ended. End of input means that the parent has exited or was killed: all groups that are
still watched get SIGTERM, and SIGKILL five seconds later.

`PR_SET_PDEATHSIG` is not used: it exists on Linux only, it fires when the *thread* that started the child ends, and it needs
Python code between fork and exec.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

_GRACE_SECONDS = 5.0


def main() -> None:
    """Watch until standard input ends, then end what is left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The parent handles a Ctrl-C or a `kill` of the whole group; the guard acts only on the parent's end.
        signal.signal(ignored, signal.SIG_IGN)
    end(read(sys.stdin))


def read(lines: Iterable[str]) -> list[int]:
    """Return the process groups that are still watched when the input ends, the oldest first."""
    watched: list[int] = []
    for line in lines:
        group = int(line[1:])
        if line[0] == "+":
            watched.append(group)
        elif group in watched:
            watched.remove(group)
    return watched


def end(groups: list[int]) -> None:
    """Send SIGTERM to the process groups, the youngest first, and SIGKILL to those that outlive the grace time."""
    for group in reversed(groups):
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(_signal(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.1)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
