"""What `groundswell up` keeps from run to run, and what it believes of what it finds."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.local import DEMO_STATE_DIR, STATE_DIR, leftovers, place
from deploy.local.leftovers import end_leftovers
from deploy.local.parts.ports import LOOPBACK, free_port, is_free
from deploy.local.parts.postgres import forget_dead_server
from deploy.local.parts.process import PartFailed
from deploy.local.place import PORTS, Place, claim, next_free
from deploy.local.state import RunningProcess, is_running, start_of

OWN = ["kafka", "redis", "postgres"]


@pytest.fixture
def usual_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free ports replace the usual ones, which another stack may use."""
    ports = {name: free_port() for name in PORTS}
    monkeypatch.setattr(place, "PORTS", ports)
    return ports


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that a killed run has left."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        yield process
        process.kill()


def noted(pid: int, started: float) -> RunningProcess:
    return RunningProcess(name="verify", pid=pid, log="verify.log", address="http://127.0.0.1:1", started=started)


async def test_ports_and_secrets_are_those_of_the_last_run(tmp_path: Path, usual_ports: dict[str, int]) -> None:
    with Place(tmp_path) as here:
        await here.prepare(broker="embedded", parts=OWN)
        first = here.port("ingest"), here.secret("SIGNER_PEPPER"), here.secret("valkey")
    assert first[0] == usual_ports["ingest"]
    assert first[1] != first[2]
    usual_ports["ingest"] = free_port()  # what is kept stays, whatever is usual by then
    with Place(tmp_path) as here:
        await here.prepare(broker="embedded", parts=OWN)
        assert (here.port("ingest"), here.secret("SIGNER_PEPPER"), here.secret("valkey")) == first


async def test_a_port_that_another_program_has_is_replaced_by_the_next_and_said(
    tmp_path: Path, usual_ports: dict[str, int]
) -> None:
    said: list[str] = []
    usual_ports["verify"] = usual_ports["ingest"] + 1  # is meant for verify, and so not for ingest
    with socket.create_server((LOOPBACK, usual_ports["ingest"])), Place(tmp_path, report=said.append) as here:
        await here.prepare(broker="embedded", parts=OWN)
        port = here.port("ingest")
        assert port > usual_ports["verify"]
        assert is_free(port)
        assert said == [f"port {usual_ports['ingest']} is taken by another program: ingest is on {port}"]
    with Place(tmp_path, report=said.append) as here:
        await here.prepare(broker="embedded", parts=OWN)
        assert here.port("ingest") == port, "the first run's port stays"


async def test_a_kept_port_that_is_taken_for_once_comes_back(tmp_path: Path, usual_ports: dict[str, int]) -> None:
    with Place(tmp_path) as here:
        await here.prepare(broker="embedded", parts=OWN)
        here.port("ingest")
    with socket.create_server((LOOPBACK, usual_ports["ingest"])), Place(tmp_path) as here:
        await here.prepare(broker="embedded", parts=OWN)
        assert here.port("ingest") != usual_ports["ingest"]
    with Place(tmp_path) as here:
        await here.prepare(broker="embedded", parts=OWN)
        assert here.port("ingest") == usual_ports["ingest"]


def test_there_may_be_no_port_left() -> None:
    with pytest.raises(PartFailed, match="no port from 65535 upwards is free"):
        next_free(65_535, without={65_535})


async def test_nobody_else_can_look_in(tmp_path: Path) -> None:
    folder = tmp_path / "place"
    with Place(folder, usual_ports=False) as here:
        await here.prepare(broker="embedded", parts=OWN)
        here.secret("SIGNER_PEPPER")
        here.note_processes([])
        assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
        assert (os.geteuid() == 0) or stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("kept.json", "processes.json")} == {0o600}


async def test_data_of_another_broker_or_of_fewer_parts_is_not_taken_over(tmp_path: Path) -> None:
    with Place(tmp_path) as here:
        await here.prepare(broker="embedded", parts=OWN)
    with Place(tmp_path) as here:
        with pytest.raises(PartFailed, match=r"the embedded broker.*the apache broker.*groundswell reset"):
            await here.prepare(broker="apache", parts=OWN)
        with pytest.raises(PartFailed, match=r"kafka, postgres, redis of its own.*kafka, postgres of its own"):
            await here.prepare(broker="embedded", parts=["kafka", "postgres"])


async def test_a_damaged_file_is_named_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text('{"broker": "embe')
    with Place(tmp_path) as here, pytest.raises(PartFailed, match=r"kept\.json cannot be read"):
        await here.prepare(broker="embedded", parts=OWN)
    assert (tmp_path / "kept.json").read_text() == '{"broker": "embe'


async def test_logs_of_the_run_before_are_there_for_one_more_run(tmp_path: Path) -> None:
    for run in ("first", "second", "third"):
        with Place(tmp_path) as here:
            await here.prepare(broker="embedded", parts=OWN)
            (tmp_path / "logs" / "verify.log").write_text(run)
    assert (tmp_path / "logs.before" / "verify.log").read_text() == "second"


async def test_what_a_killed_run_left_is_ended(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_LEFTOVERS_SECONDS", 0.3)
    with Place(tmp_path) as here:
        here.note_processes([noted(sleeper.pid, start_of(sleeper.pid))])
    assert await end_leftovers(tmp_path) == ["verify"]
    assert not psutil.pid_exists(sleeper.pid)


async def test_a_program_that_has_the_id_of_a_process_that_ended_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    with Place(tmp_path) as here:
        here.note_processes([noted(sleeper.pid, start_of(sleeper.pid) - 100)])
    assert await end_leftovers(tmp_path) == []
    assert sleeper.poll() is None


def test_a_process_is_known_by_its_id_and_its_start(sleeper: subprocess.Popen[bytes]) -> None:
    started = start_of(sleeper.pid)
    assert is_running(sleeper.pid, started)
    assert not is_running(sleeper.pid, started - 10)
    sleeper.kill()
    psutil.Process(sleeper.pid).wait(5)
    assert not is_running(sleeper.pid, started), "dead, and not waited for"


async def test_postgres_does_not_take_another_program_for_its_killed_server(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    file = tmp_path / "postmaster.pid"
    file.write_text(f"{sleeper.pid}\n{tmp_path}\n1790000000\n")
    await forget_dead_server(tmp_path)
    assert not file.exists()
    await forget_dead_server(tmp_path)  # nothing there is no error


@pytest.fixture
def dead_server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program called postgres that has ended, which its parent (we) has not taken note of, and its pid file."""
    program = tmp_path / "postgres"
    program.symlink_to("/bin/true")
    with subprocess.Popen([program]) as process:
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        (tmp_path / "postmaster.pid").write_text(f"{process.pid}\n{tmp_path}\n1790000000\n")
        yield process


async def test_postgres_waits_until_the_end_of_its_killed_server_is_noted(
    tmp_path: Path, dead_server: subprocess.Popen[bytes]
) -> None:
    forgetting = asyncio.create_task(forget_dead_server(tmp_path, patience_seconds=60))
    await asyncio.sleep(0.3)
    assert not forgetting.done()
    dead_server.wait()
    await asyncio.wait_for(forgetting, 30)
    assert (tmp_path / "postmaster.pid").exists(), "no process has its id any more: PostgreSQL sees that by itself"


@pytest.mark.usefixtures("dead_server")
async def test_postgres_waits_for_no_parent_that_never_takes_note(tmp_path: Path) -> None:
    await forget_dead_server(tmp_path, patience_seconds=0)
    assert not (tmp_path / "postmaster.pid").exists()


def test_one_stack_at_a_time(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(PartFailed, match=r"another stack runs in .*Ctrl-C"):
        claim(tmp_path)
    claim(tmp_path).close()


async def test_a_reset_leaves_nothing_of_up_and_touches_nothing_else(tmp_path: Path) -> None:
    elsewhere = tmp_path / "groundswell-postgres-1" / "data"
    elsewhere.mkdir(parents=True)
    folder = tmp_path / "place"
    with Place(folder) as here:
        await here.prepare(broker="embedded", parts=OWN)
        here.note_postgres_dir(elsewhere)
        here.note_processes([])
        (folder / "data" / "kafka").mkdir()
        (folder / "demo").mkdir()
        place.remove(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["demo", "lock"]
    assert not elsewhere.exists()
    assert place.is_empty(folder)


async def test_a_reset_removes_no_folder_that_is_not_postgres_s(tmp_path: Path) -> None:
    precious = tmp_path / "precious" / "data"
    precious.mkdir(parents=True)
    with Place(tmp_path / "place") as here:
        await here.prepare(broker="embedded", parts=OWN)
        here.note_postgres_dir(precious)
        place.remove(tmp_path / "place")
    assert precious.exists()


def a_kept_place(folder: Path) -> None:
    with Place(folder, usual_ports=False) as here:
        (folder / "kept.json").write_text('{"broker": "embedded", "parts": []}')
        here.note_processes([])


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("", True), ("y\n", False)])
def test_a_reset_asks_before_it_removes_anything(tmp_path: Path, answer: str, *, stays: bool) -> None:
    a_kept_place(tmp_path)
    run = CliRunner().invoke(app, ["reset", "--state-dir", str(tmp_path)], input=answer)
    assert "Remove all petitions, signatures, mails, ports and tokens" in run.output
    assert (run.exit_code, (tmp_path / "kept.json").exists()) == (int(stays), stays)


def test_a_reset_can_be_told_not_to_ask_and_finds_nothing_the_second_time(tmp_path: Path) -> None:
    a_kept_place(tmp_path)
    for said in ("is as new", "There is nothing in"):
        run = CliRunner().invoke(app, ["reset", "--yes", "--state-dir", str(tmp_path)])
        assert (run.exit_code, said in run.output) == (0, True)


def test_a_reset_is_refused_while_a_stack_runs(tmp_path: Path) -> None:
    a_kept_place(tmp_path)
    with claim(tmp_path):
        run = CliRunner().invoke(app, ["reset", "--yes", "--state-dir", str(tmp_path)])
    assert run.exit_code == 1
    assert "Nothing was removed: another stack runs in" in run.output
    assert (tmp_path / "kept.json").exists()


def test_a_demo_finds_its_place_free_while_up_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Place(STATE_DIR), claim(DEMO_STATE_DIR):
        assert DEMO_STATE_DIR.parent == STATE_DIR
        assert DEMO_STATE_DIR.name not in place._OWN
