"""The real servers (parts) of the tests, started once per run, when the first test needs them.

`kafka` (Apache Kafka; the embedded broker where Apache Kafka is not available), `valkey`, `postgres` and `mailbox` are
`deploy.local.parts.process.Process`es: besides their `url` they have `stop`, `kill`, `pause`, `resume`, `start` and `restart`.
All tests share them, so a test uses topics, keys, databases and addresses of its own, and leaves a part running.

`system` is the whole of Groundswell on parts of its own, which a test may stop, kill and restart: for the next test that asks
for `system` everything is running and ready again. Tests use petitions of their own.

Environment:
    GROUNDSWELL_TEST_BROKER: `embedded` to run on the embedded broker on purpose (it starts in 50 ms).
    GROUNDSWELL_REQUIRE_APACHE: `1` makes the run fail when Apache Kafka is not available, as in CI.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from deploy.local.parts.apache_kafka import ApacheKafka, KafkaJarsMissing, fetch_jars
from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.mail_catcher import MailCatcher
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey

if TYPE_CHECKING:
    from deploy.local.stack import Stack
    from tests.support.system import System

# No deadline: on a machine that also runs a broker and four services, the time of an example says nothing.
hypothesis.settings.register_profile("tests", deadline=None)
# `make unit`: the same examples every time, and fewer of them.
hypothesis.settings.register_profile("unit", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("tests")

_without_apache = pytest.StashKey[str]()
_REQUIRED = os.environ.get("GROUNDSWELL_REQUIRE_APACHE") == "1"


@pytest.fixture(scope="session")
def parts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the parts of this run keep their data and logs."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="session")
async def apache_is_here(pytestconfig: pytest.Config) -> bool:
    """Whether tests can use Apache Kafka. When not, the end of the run says why (see `pytest_terminal_summary`)."""
    if os.environ.get("GROUNDSWELL_TEST_BROKER") == "embedded" and not _REQUIRED:
        pytestconfig.stash[_without_apache] = "GROUNDSWELL_TEST_BROKER=embedded was set"
        return False
    try:
        await fetch_jars()
    except KafkaJarsMissing as error:
        if _REQUIRED:
            pytest.fail(f"Apache Kafka is required here (GROUNDSWELL_REQUIRE_APACHE=1): {error}")
        pytestconfig.stash[_without_apache] = str(error)
        return False
    return True


@pytest.fixture
def needs_apache(*, apache_is_here: bool) -> None:
    """For a test about Apache Kafka only: skip it where that is not available."""
    if not apache_is_here:
        pytest.skip("Apache Kafka cannot be had here")


@pytest.fixture(scope="session")
async def kafka(*, apache_is_here: bool, parts_dir: Path) -> AsyncIterator[KafkaBroker]:
    """A Kafka broker; `kind` says which, `idempotence` whether it supports idempotent producers."""
    broker: KafkaBroker = EmbeddedKafka(log_dir=parts_dir)
    if apache_is_here:
        broker = ApacheKafka(data_dir=parts_dir / "kafka", log_dir=parts_dir)
    async with broker:
        yield broker


@pytest.fixture(scope="session")
async def valkey(parts_dir: Path) -> AsyncIterator[Valkey]:
    """A Valkey server with an append-only file."""
    async with Valkey(data_dir=parts_dir / "valkey", log_dir=parts_dir) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres(parts_dir: Path) -> AsyncIterator[Postgres]:
    """A PostgreSQL server; `create_database` makes a database of a test's own."""
    server = Postgres(data_dir=parts_dir / "postgres", log_dir=parts_dir)
    try:
        async with server:
            yield server
    finally:
        server.remove_data()


@pytest.fixture(scope="session")
async def mailbox(parts_dir: Path) -> AsyncIterator[MailCatcher]:
    """A mail catcher."""
    async with MailCatcher(data_dir=parts_dir / "mailbox", log_dir=parts_dir) as catcher:
        yield catcher


@pytest.fixture(scope="session")
async def running_stack(*, apache_is_here: bool, parts_dir: Path) -> AsyncIterator[Stack]:
    """All four services, on parts of their own."""
    from deploy.local.stack import Stack

    stack = Stack(
        broker="apache" if apache_is_here else "embedded",
        state_dir=parts_dir / "system",
        environ={},
        service_environment={
            "NOTIFY_COALESCE_SECONDS": "1",
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "INGEST_CLIENT_RATE": "off",
            "INGEST_WRONG_CREDENTIALS_RATE": "off",
            "TALLY_AUDIT_SECONDS": "3",
            "VERIFY_MAX_RECORDS": "300",  # small batches: a kill then always hits between some of them
            "TALLY_MAX_RECORDS": "300",
        },
    )
    async with stack:
        yield stack


@pytest.fixture
async def system(running_stack: Stack) -> AsyncIterator[System]:
    """The whole system, ready, with all of its processes running."""
    import asyncpg
    import httpx

    from tests.support.system import System

    for process in running_stack.processes:
        if not process.running:
            await process.start()
    database = await asyncpg.create_pool(running_stack.environment["POSTGRES_URL"], min_size=0, max_size=2)
    async with httpx.AsyncClient(timeout=30, verify=False, trust_env=False) as http:  # plain HTTP, on loopback
        system = System(running_stack, http, database)
        await system.is_ready()
        yield system
    await database.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print a warning when tests that are meant for Apache Kafka ran on the embedded broker."""
    if reason := config.stash.get(_without_apache, None):
        terminalreporter.section("APACHE KAFKA WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(reason)
        terminalreporter.line(
            "The tests ran on the embedded broker. What that leaves unproved: the idempotent producer,"
        )
        terminalreporter.line("a broker that restarts with its data, and that the real Kafka behaves as Tansu does.")
