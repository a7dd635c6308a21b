"""Groundswell as an image has it: a wheel and the locked packages, without the extra `local` and without a checkout.

`deploy/Dockerfile` installs by the same command (`tests/contract/test_deploy_files.py` compares it), from the same files.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.cli.needs import LOCAL_PACKAGES
from deploy.local.parts.mail_catcher import MailCatcher
from deploy.local.parts.service import ServiceProcess
from tests.support.system import System

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"

OURS = ("PYTHONPATH", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "POSTGRES_URL", "SMTP_URL", "INGEST_URL", "ADMIN_TOKEN")
"""What this test run might have in its environment, and an installed Groundswell must not get from it."""


def outside(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that knows of no checkout."""
    return {**{name: value for name, value in os.environ.items() if name not in OURS}, **environment}


def install(folder: Path, *options: str) -> Path:
    """Install Groundswell into `folder` as the Dockerfile does; return the environment's Python."""
    if not UV.exists():
        pytest.skip("there is no uv: run `make setup`")
    source = folder / "src"
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in [line[1:] for line in lines if line.startswith("!")]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".env*"))
        else:
            source.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [UV, "sync", "--quiet", "--locked", "--no-dev", "--no-editable", *options, "--python", sys.executable]
    environment = {"UV_PROJECT_ENVIRONMENT": str(folder / "venv"), "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(command, cwd=source, env=outside(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)  # an installation that still needs its source would need it now
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with plain Groundswell."""
    return install(tmp_path_factory.mktemp("installed"))


async def groundswell(
    python: Path, *arguments: str, place: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the command in `place`; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(python.with_name("groundswell"), *arguments),
        cwd=place,
        env=outside(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), " ".join(err.decode().split())


class InstalledService(ServiceProcess):
    """A service of an installation, in place of one of the stack."""

    def __init__(self, python: Path, instead_of: ServiceProcess, *, environment: Mapping[str, str], place: Path):
        super().__init__(instead_of.service, environment=environment, log_dir=place, port=instead_of.port)
        self._python, self._place = python, place

    def _command(self) -> list[str | Path]:
        return [self._python, "-m", f"services.{self.service}"]

    def _working_directory(self) -> Path:
        return self._place

    def _environ(self) -> Mapping[str, str]:
        return outside({name: value for name, value in super()._environ().items() if name != "PYTHONPATH"})


@asynccontextmanager
async def running(services: Sequence[ServiceProcess]) -> AsyncIterator[None]:
    """Start all of them at once, and stop them at the end."""
    try:
        await asyncio.gather(*(service.start() for service in services))
        yield
    finally:
        await asyncio.gather(*(service.stop() for service in services))


def test_the_extra_local_is_what_a_command_names_when_it_is_not_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pins = [pin for pin in (*extras["local"], *extras["mailbox"]) if "==" in pin]
    assert sorted(pin.split("==")[0].replace("-", "_") for pin in pins) == sorted(LOCAL_PACKAGES)


def test_an_image_has_no_server_of_the_local_stack(installed: Path) -> None:
    look = f"import importlib.util; print([n for n in {LOCAL_PACKAGES!r} if importlib.util.find_spec(n)])"
    said = subprocess.run([installed, "-c", look], capture_output=True, text=True, check=True, env=outside({}))
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("up",), ("kill", "verify"), ("reset", "--yes"), ("demo",)], ids=" ".join)
async def test_commands_of_the_local_stack_name_the_extra(
    installed: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, out, err = await groundswell(installed, *arguments, place=tmp_path)
    assert (code, out) == (2, "")
    assert "Install groundswell[local]" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("faults",), ("bench", "--help"), ("generated", "--check")], ids=" ".join)
async def test_commands_of_a_checkout_say_so(installed: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = await groundswell(installed, *arguments, place=tmp_path)
    assert (code, out) == (2, "")
    assert "only a checkout of the source has" in err


async def test_a_stack_on_this_machine_is_not_taken_by_an_installation(installed: Path, system: System) -> None:
    place = Path(system.stack.state.processes[0].log).parents[1]
    assert (place / "stack.json").exists()
    elsewhere = place.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".groundswell").symlink_to(place)
    code, _, err = await groundswell(installed, "migrate", place=elsewhere)
    assert code == 2
    assert "POSTGRES_URL is not set" in err


async def test_services_and_commands_of_an_installation_do_their_work(
    installed: Path, system: System, tmp_path: Path
) -> None:
    petition_id = "of-an-installation"
    told = {**system.stack.environment, "INGEST_URL": system.ingest}

    async def command(*arguments: str, code: int = 0) -> dict[str, Any]:
        ended, out, err = await groundswell(installed, *arguments, "--json", place=tmp_path, environment=told)
        assert ended == code, f"{arguments}: {out} {err}"
        said: dict[str, Any] = json.loads(out)
        return said

    assert (await command("check"))["ok"]
    assert (await command("migrate")) == {"ok": True, "applied": []}
    assert (await command("topics", "apply"))["ok"]
    ours = system.stack.service_processes
    await asyncio.gather(*(service.stop() for service in ours))
    services = [InstalledService(installed, service, environment=told, place=tmp_path) for service in ours]
    async with running(services):
        probe = [installed, "-m", "deploy.probe", "PORT", "/readyz"]
        port = {"PORT": str(system.stack.services["tally"][0].port)}
        assert subprocess.run(probe, env=outside(port), capture_output=True, check=False).returncode == 0

        await system.start_petition(petition_id, milestones=[3])
        ids = await system.surge(petition_id, range(5))
        await system.counts_to(petition_id, 5)
        page = await system.http.get(f"{system.tally}/p/{petition_id}")
        assert f"Petition {petition_id}" in page.text

        async def sent() -> dict[str, Any]:
            async with asyncio.timeout(60):
                while not (said := await command("deliveries", "list", "--petition", petition_id))["deliveries"]:
                    await asyncio.sleep(0.2)
            return said

        assert (await sent())["ok"]
        assert (await command("deliveries", "retry", "--petition", petition_id, "--actor", "test"))["ok"]
        assert (await command("erase", ids[0], "--reason", "Request 1"))["ok"]
        assert (await command("audit", petition_id))["drift"] == 0
        assert (await command("rebuild", petition_id))["petitions"][petition_id]["count"] == 5
        events = (await command("admin-events", "--petition", petition_id))["events"]
        assert {event["petition_id"] for event in events} == {petition_id}
    costs = ROOT / "docs" / "bench" / "costs.json"
    await command("capacity", "--rate", "1000", "--signatures", "1000000", "--costs", str(costs))


async def test_the_image_of_the_mailbox_has_its_smtp_server(tmp_path: Path) -> None:
    python = install(tmp_path, "--extra", "mailbox")

    class InstalledMailbox(MailCatcher):
        def _command(self) -> list[str | Path]:
            return [python, "-m", "deploy.local.mailbox"]

        def _working_directory(self) -> Path:
            return tmp_path

        def _environ(self) -> Mapping[str, str]:
            return outside({name: value for name, value in super()._environ().items() if name != "PYTHONPATH"})

    async with (
        InstalledMailbox(data_dir=tmp_path / "data", log_dir=tmp_path) as mailbox,
        httpx.AsyncClient(base_url=mailbox.page_url, trust_env=False) as http,
    ):
        assert await mailbox.messages() == []
        assert (await http.get("/")).status_code == 200
