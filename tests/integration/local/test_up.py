"""`groundswell up` as people use it: it keeps its state, restarts what dies, and kills on request."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy.local import PROJECT_ROOT
from deploy.local.state import StackState
from deploy.local.victims import VICTIMS, Victim
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "deploy.cli"]
PATIENCE_SECONDS = 180
"""A whole start takes ten seconds on an idle machine; this one may be busy."""


class Up:
    """A running `groundswell up`, and someone who signs there."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, http: httpx.AsyncClient) -> None:
        self.process, self.folder, self.http = process, folder, http
        self.accepted = 0

    @property
    def state(self) -> StackState:
        return StackState.read(self.folder)

    async def make_petition(self, petition_id: str) -> None:
        petition = {
            "organisation": {"slug": "harbour-friends", "name": "Friends of the Harbour"},
            "title": "Keep the ferry",
            "text": "Keep the ferry.",
            "targets": [{"target_id": "council", "name": "Council", "kind": "body", "email": "c@council.example"}],
            "milestones": [1],
        }
        answer = await self.http.put(
            f"{self.state.ingest_url}/v1/petitions/{petition_id}",
            json=petition,
            headers={"authorization": f"Bearer {self.state.admin_token}"},
        )
        assert answer.status_code in (200, 201), answer.text

    async def sign(self, petition_id: str) -> None:
        """Sign once more, as another person, who repeats the request until it is accepted."""
        number = self.accepted + 1

        async def is_accepted() -> bool:
            try:
                answer = await self.http.post(
                    f"{self.state.ingest_url}/v1/petitions/{petition_id}/signatures",
                    json={"email": f"signer{number}@mail.example", "name": "Robin Example", "country": "NL"},
                    headers={"idempotency-key": f"{petition_id}-{number}"},
                )
            except httpx.TransportError:
                return False
            assert answer.status_code in (202, 503), answer.text
            return answer.status_code == httpx.codes.ACCEPTED

        await eventually(is_accepted, "a signature is accepted", PATIENCE_SECONDS)
        self.accepted = number

    async def count(self, petition_id: str) -> int:
        """The count on the page; -1 while there is none."""
        try:
            page = await self.http.get(f"{self.state.tally_url}/p/{petition_id}")
        except httpx.TransportError:
            return -1
        shown = re.search(r'data-testid="petition-count"[^>]*>([\d,]+)<', page.text)
        return -1 if shown is None else int(shown[1].replace(",", ""))

    async def shows_all(self, petition_id: str) -> None:
        """Wait until the page counts every signature that was accepted."""

        async def does() -> bool:
            return await self.count(petition_id) == self.accepted

        await eventually(does, f"the page of {petition_id} shows {self.accepted}", PATIENCE_SECONDS)


@contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`groundswell up` in `folder`, as soon as it reports that it is up; it is stopped as with Ctrl-C."""
    command = [*COMMAND, "up", "--json", "--any-ports", "--state-dir", str(folder), *arguments]
    with (
        (folder.parent / f"{folder.name}.stderr").open("a") as said,
        subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            assert process.stdout.readline(), (folder.parent / f"{folder.name}.stderr").read_text()
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def groundswell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


async def groundswell_kill(up: Up, *words: str) -> dict[str, Any]:
    """`groundswell kill … --json`, which must go well."""
    run = await asyncio.to_thread(groundswell, "kill", *words, "--json", "--state-dir", str(up.folder))
    report: dict[str, Any] = json.loads(run.stdout)
    assert (run.returncode, report["ok"]) == (0, True), report
    return report


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20, verify=False, trust_env=False) as client:  # plain HTTP, on loopback
        yield client


@pytest.fixture(scope="module")
def up_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "place"


@pytest.fixture(scope="module")
def up_process(up_folder: Path) -> Iterator[subprocess.Popen[str]]:
    with started(up_folder) as process:
        yield process


@pytest.fixture
async def up(up_process: subprocess.Popen[str], up_folder: Path, http: httpx.AsyncClient) -> Up:
    return Up(up_process, up_folder, http)


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
async def test_each_part_and_service_can_be_killed_and_every_signature_counts(up: Up, victim: Victim) -> None:
    petition_id = f"killed-{victim.name}"
    await up.make_petition(petition_id)
    await up.sign(petition_id)
    killing = asyncio.create_task(groundswell_kill(up, victim.name))
    while not killing.done():
        await up.sign(petition_id)
        await asyncio.sleep(0.3)
    report = await killing
    assert report["new_pid"] != report["pid"]
    assert psutil.pid_exists(report["new_pid"])
    await up.sign(petition_id)
    await up.shows_all(petition_id)
    said = (up.folder.parent / "place.stderr").read_text()
    assert f"{victim.process} was ended by SIGKILL." in said
    assert f"{victim.process} is ready again" in said
    for where in (report["watch"]["readiness"], report["watch"]["metric"].rpartition(" in ")[2]):
        assert (await up.http.get(where)).status_code == 200


@pytest.mark.parametrize("name", ["postgres", "verify"])
async def test_what_is_frozen_goes_on_as_the_same_process(up: Up, name: str) -> None:
    petition_id = f"frozen-{name}"
    await up.make_petition(petition_id)
    report = await groundswell_kill(up, name, "--freeze", "2")
    assert (report["how"], report["new_pid"]) == ("SIGSTOP for 2 s", report["pid"])
    assert psutil.Process(report["pid"]).status() != psutil.STATUS_STOPPED
    await up.sign(petition_id)
    await up.shows_all(petition_id)


async def test_the_mail_of_the_first_signature_comes(up: Up) -> None:
    petition_id = "mailed"
    await up.make_petition(petition_id)
    await up.sign(petition_id)

    async def came() -> bool:
        mails = (await up.http.get(f"{up.state.mailbox_url}/messages", params={"to": "c@council.example"})).json()
        return any(petition_id in mail["text"] for mail in mails)

    await eventually(came, "the council has a mail about it", PATIENCE_SECONDS)


async def test_a_name_that_nobody_has_gets_the_names_there_are(up: Up) -> None:
    run = await asyncio.to_thread(groundswell, "kill", "zookeeper", "--state-dir", str(up.folder))
    assert run.returncode == 1
    assert "ingest, verify, tally, notify, kafka, kafka-files, redis, postgres, mail" in run.stderr


async def test_a_reset_is_refused_while_it_runs(up: Up) -> None:
    run = await asyncio.to_thread(groundswell, "reset", "--yes", "--state-dir", str(up.folder))
    assert run.returncode == 1
    assert f"Ctrl-C where it runs or `kill {up.process.pid}`" in run.stderr
    assert up.state.admin_token


async def test_a_second_one_in_the_same_place_says_who_is_there(up: Up) -> None:
    run = await asyncio.to_thread(groundswell, "up", "--state-dir", str(up.folder))
    assert run.returncode == 1
    assert "another stack runs in" in run.stderr


async def test_after_kill_9_all_of_it_goes_on_with_the_same_data_ports_and_tokens(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    folder = tmp_path / "place"
    with started(folder) as process:
        up = Up(process, folder, http)
        await up.make_petition("kept")
        await up.sign("kept")
        await up.shows_all("kept")
        before = up.state
        await up.sign("kept")  # accepted, and killed before it need have been counted
        process.kill()
        process.wait()
        with pytest.raises(FileNotFoundError):
            StackState.read(folder)
        run = await asyncio.to_thread(groundswell, "kill", "kafka", "--state-dir", str(folder))
        assert (run.returncode, "nothing runs in" in run.stderr) == (1, True)
    with started(folder) as process:
        up.process = process
        after = up.state
        assert after.environment == before.environment
        assert after.services == before.services
        assert after.mailbox_url == before.mailbox_url
        await up.shows_all("kept")
        answer = await http.post(
            f"{after.ingest_url}/v1/petitions/kept/signatures",
            json={"email": "Signer1@mail.example", "name": "Robin Example", "country": "NL"},
        )
        assert answer.status_code == 202, "the petition is known"
        await up.sign("kept")
        await up.shows_all("kept")  # the repeated signer is known, too
        pids = {each.pid for each in after.processes}
    assert process.returncode == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    run = await asyncio.to_thread(groundswell, "reset", "--yes", "--state-dir", str(folder))
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]
