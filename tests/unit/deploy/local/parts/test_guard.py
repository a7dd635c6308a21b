"""The guard's list of processes."""

import signal
import subprocess
import sys

import pytest

from deploy.local.parts import guard


def test_the_guard_watches_what_was_started_and_has_not_ended() -> None:
    assert guard.read(["+10\n", "+11\n", "-10\n", "+12\n", "-99\n"]) == [11, 12]


def test_the_guard_ends_process_groups_that_are_left_and_minds_none_that_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "_GRACE_SECONDS", 0.3)  # the child is not reaped here before the guard has finished
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    gone = subprocess.Popen(command, start_new_session=True)
    gone.kill()
    gone.wait()
    with subprocess.Popen(command, start_new_session=True) as left:
        guard.end([left.pid, gone.pid])
        assert left.wait(5) == -signal.SIGTERM
