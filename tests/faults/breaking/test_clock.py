"""A wrong clock affects the processes that use it, at once, and no others."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.breaking.clock import SEEN_AFTER_SECONDS, clock_wrong_by, faketime_environment, remove_leftovers

PROGRAM = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


def test_a_running_process_sees_the_clock_jump_and_come_back_while_its_timers_stay_right(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **faketime_environment(clock)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def wrong_by() -> tuple[int, int]:
        """The seconds by which the process's wall clock and monotonic time differ from ours."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("?\n")
        process.stdin.flush()
        wall, monotonic = map(float, process.stdout.readline().split())
        return round(wall - time.time()), round(monotonic - time.monotonic())

    left = Path(f"/dev/shm/faketime_shm_{process.pid}")
    try:
        assert wrong_by() == (0, 0)
        for seconds in (3_600, -86_400):
            with clock_wrong_by(clock, seconds):
                time.sleep(SEEN_AFTER_SECONDS)
                assert wrong_by() == (seconds, 0)
            time.sleep(SEEN_AFTER_SECONDS)
            assert wrong_by() == (0, 0)
    finally:
        remove_leftovers()
        assert left.exists(), "what a running process needs stays"
        process.kill()
        process.communicate()
        remove_leftovers()
        assert not left.exists()
