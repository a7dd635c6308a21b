"""The environment of a benchmark: real parts, services, and whatever is measured beside them, all on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import asyncpg
import httpx
import redis.asyncio

from deploy.local.assembly import stack_secrets
from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.mail_catcher import MailCatcher
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.process import Process
from deploy.local.parts.service import ServiceName, ServiceProcess
from deploy.local.parts.valkey import Valkey
from deploy.migrations import migrate
from shared.contract.topics import DEFAULT_PARTITIONS
from shared.kafka.apply_topics import apply_topics
from tests.bench.setup.emptying import empty_kafka

_SETTINGS: Final = {
    # All load comes from one address here.
    "INGEST_CLIENT_RATE": "off",
    # The pages' address in mails; unused here.
    "PUBLIC_PAGES_URL": "http://petitions.quillmere.example",
}


class Command(Process):
    """Any program that is measured beside the services: a peer, a floor, a crowd of readers.

    Args:
        name: in reports, and of its log file.
        command: program and arguments.
        environ: additions to this process's environment.
        ready_url: it is ready when a GET there is answered with a status below 500; None: as soon as it has started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environ: Mapping[str, str],
        log_dir: Path,
        ready_url: str | None = None,
    ) -> None:
        super().__init__(name=name, log_file=log_dir / f"{name}.log")
        self._words, self._told, self._ready_url = command, environ, ready_url

    @property
    def url(self) -> str:
        """The URL of its readiness check; empty if there is none."""
        return self._ready_url or ""

    @property
    def environment(self) -> dict[str, str]:
        return {}

    def _command(self) -> Sequence[str | Path]:
        return self._words

    def _environ(self) -> Mapping[str, str]:
        return {**os.environ, **self._told}

    async def _is_ready(self) -> bool:
        if self._ready_url is None:
            return True
        try:
            async with httpx.AsyncClient(verify=False, trust_env=False) as client:
                return (await client.get(self._ready_url)).status_code < 500
        except httpx.TransportError:
            return False


class Arena:
    """`async with Arena(state_dir) as arena` starts Apache Kafka, PostgreSQL, Valkey and the mail catcher, with topics and
    tables, but no service; at the end everything is stopped and the data removed. Logs stay.

    Attributes:
        kafka, postgres, valkey, mailbox: the parts.
        environment: of services and peers: addresses and secrets.
        logs: the folder of the log files.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.resolve()
        self._data, self.logs = self.state_dir / "data", self.state_dir / "logs"
        for leftover in (self._data, self.logs):
            shutil.rmtree(leftover, ignore_errors=True)
        self._data.mkdir(parents=True)
        self.logs.mkdir()
        self.kafka = ApacheKafka(data_dir=self._data / "kafka", log_dir=self.logs)
        self.postgres = Postgres(data_dir=self._data / "postgres", log_dir=self.logs)
        self.valkey = Valkey(data_dir=self._data / "valkey", log_dir=self.logs)
        self.mailbox = MailCatcher(data_dir=self._data / "mailbox", log_dir=self.logs)
        self.environment: dict[str, str] = {**stack_secrets({}), **_SETTINGS}
        for part in self.parts:
            self.environment.update(part.environment)
        self._started: list[Process] = []
        self._instances: dict[ServiceName, int] = {}

    @property
    def parts(self) -> list[Process]:
        """Kafka, PostgreSQL, Valkey and the mail catcher."""
        return [self.kafka, self.postgres, self.valkey, self.mailbox]

    @property
    def kafka_log_directory(self) -> Path:
        """Kafka's data directory, with a folder per partition."""
        return self._data / "kafka" / "log"

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's address."""
        return self.kafka.bootstrap_servers

    @property
    def admin(self) -> dict[str, str]:
        """Headers of an administrator."""
        return {"authorization": f"Bearer {self.environment['ADMIN_TOKEN']}"}

    async def start(self) -> Self:
        """Start the parts; create topics and tables.

        Raises:
            PartFailed: a part did not start.
        """
        try:
            await asyncio.gather(*(part.start() for part in self.parts))
            # A rewrite would shrink the append-only file while its growth is measured.
            async with redis.asyncio.Redis.from_url(self.valkey.url) as client:
                await client.config_set("auto-aof-rewrite-percentage", 0)
            await self._prepare()
        except BaseException:
            await self.stop()
            raise
        return self

    async def stop(self) -> None:
        """Stop everything and remove the data."""
        await self.stop_all()
        await asyncio.gather(*(part.stop() for part in self.parts))
        self.postgres.remove_data()
        shutil.rmtree(self._data, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def service(self, name: ServiceName, **settings: str) -> ServiceProcess:
        """Start an instance of a service and wait until it is ready. `settings` are environment variables.

        Raises:
            PartFailed: it did not become ready.
        """
        number = self._instances[name] = self._instances.get(name, 0) + 1
        process = ServiceProcess(name, environment={**self.environment, **settings}, log_dir=self.logs, instance=number)
        await self._start(process)
        return process

    async def process(
        self,
        name: str,
        command: Sequence[str | Path],
        environ: Mapping[str, str] | None = None,
        ready_url: str | None = None,
    ) -> Command:
        """Start any program and wait until it is ready; see `Command`. It gets `environment` and `environ`.

        Raises:
            PartFailed: it did not become ready.
        """
        process = Command(
            name, command, environ={**self.environment, **(environ or {})}, log_dir=self.logs, ready_url=ready_url
        )
        await self._start(process)
        return process

    async def _start(self, process: Process) -> None:
        await process.start()
        self._started.append(process)

    async def stop_one(self, process: Process) -> None:
        """Stop a service or a program that was started here."""
        await process.stop()
        self._started.remove(process)

    async def stop_all(self) -> None:
        """Stop all services and programs, in no particular order; the parts stay."""
        await asyncio.gather(*(process.stop() for process in self._started))
        self._started.clear()
        self._instances.clear()

    async def fresh(self) -> None:
        """Stop all services and programs, and empty the parts: no records, rows, keys or consumer groups.

        The parts keep running, so that a round does not begin with a cold broker.
        """
        await self.stop_all()
        await asyncio.to_thread(empty_kafka, self.bootstrap_servers)
        await self._empty_postgres()
        async with redis.asyncio.Redis.from_url(self.valkey.url) as client:
            await client.flushall()
        await self.mailbox.clear()
        await self._prepare()

    async def _prepare(self) -> None:
        await migrate(self.postgres.url)
        await apply_topics(self.bootstrap_servers, partitions=DEFAULT_PARTITIONS)

    async def _empty_postgres(self) -> None:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            await connection.execute("CHECKPOINT")  # now, and not while the next round is measured
        finally:
            await connection.close()
