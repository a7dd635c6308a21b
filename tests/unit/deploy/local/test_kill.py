"""What `groundswell kill` kills, what it refuses to kill, and what it tells users to watch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.kill import kill
from deploy.local.stack import Stack
from deploy.local.state import RunningProcess, StackState, start_of
from deploy.local.victims import VICTIMS, Victim, victim_of, what_to_watch
from tests.support.exported_metrics import metrics_of

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Any process of this machine."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        yield process
        process.kill()


def a_stack(folder: Path, **changes: object) -> StackState:
    """The state of an `up` whose processes are in `changes`."""
    return Stack(state_dir=folder, environ={}).state.model_copy(update={"supervised": True, **changes})


def verify_is(pid: int, started: float) -> list[RunningProcess]:
    return [RunningProcess(name="verify", pid=pid, log="verify.log", address="http://127.0.0.1:1", started=started)]


def test_nothing_is_killed_where_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kill("kafka", freeze=None, state_dir=tmp_path, as_json=False) == 1
    assert f"nothing runs in {tmp_path}: start it with `make up`" in capsys.readouterr().err


def test_an_unknown_name_gets_all_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_stack(tmp_path).write(tmp_path)
    assert kill("zookeeper", freeze=None, state_dir=tmp_path, as_json=False) == 1
    said = capsys.readouterr().err
    assert all(victim.name in said for victim in VICTIMS)


def test_a_stack_that_starts_nothing_again_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    a_stack(tmp_path, supervised=False, processes=verify_is(sleeper.pid, start_of(sleeper.pid))).write(tmp_path)
    assert kill("verify", freeze=None, state_dir=tmp_path, as_json=False) == 1
    assert "is not `groundswell up`" in capsys.readouterr().err
    assert sleeper.poll() is None


def test_a_part_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_stack(tmp_path, external=["KAFKA_BOOTSTRAP_SERVERS"]).write(tmp_path)
    for name in ("kafka", "kafka-files"):
        assert kill(name, freeze=None, state_dir=tmp_path, as_json=False) == 1
        assert "KAFKA_BOOTSTRAP_SERVERS was in its environment" in capsys.readouterr().err


def test_a_program_that_has_the_id_of_a_process_of_up_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    a_stack(tmp_path, processes=verify_is(sleeper.pid, start_of(sleeper.pid) - 60)).write(tmp_path)
    assert kill("verify", freeze=None, state_dir=tmp_path, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert "verify does not run just now" in report["error"]
    assert sleeper.poll() is None


def test_a_freeze_that_is_cut_short_leaves_nobody_frozen(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    a_stack(tmp_path, processes=verify_is(sleeper.pid, start_of(sleeper.pid))).write(tmp_path)
    script = f"""
import sys
from pathlib import Path
from deploy.local import kill, state
state.is_running = kill.is_running = lambda *_: True
sys.exit(kill.kill("verify", freeze=60, state_dir=Path({str(tmp_path)!r}), as_json=False))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL) as command:
        frozen = psutil.Process(sleeper.pid)
        while frozen.status() != psutil.STATUS_STOPPED:
            assert command.poll() is None
        command.terminate()
        assert command.wait(30) == 128 + 15
    assert frozen.status() != psutil.STATUS_STOPPED


def test_every_name_and_alias_is_one_victim_s() -> None:
    names = [name for victim in VICTIMS for name in (victim.name, *victim.aliases)]
    assert len(names) == len(set(names))
    assert victim_of("valkey") is victim_of("redis")
    assert victim_of("nobody") is None


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_what_is_to_be_watched_is_there(victim: Victim, tmp_path: Path) -> None:
    watch = what_to_watch(victim, a_stack(tmp_path))
    assert watch["readiness"].endswith("/readyz")
    metric = re.match(r"\w+", victim.metric)
    assert metric is not None
    assert metric[0] in {name for name, _ in metrics_of(victim.service)}
    sources = [*(ROOT / "services" / victim.service).rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    assert any(f'"{victim.log}"' in source.read_text(encoding="utf-8") for source in sources), victim.log
