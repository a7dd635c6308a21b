"""The system under attack: real parts, the four services, and a proxy in front of every part that services talk to.

The services reach Kafka, Valkey, PostgreSQL and SMTP through the proxies only; the harness reaches them directly, so that
a cut network affects the services and not the observer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

import httpx

from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.process import Process
from deploy.local.parts.service import SERVICES, ServiceName, ServiceProcess
from deploy.local.parts.valkey import Valkey
from deploy.migrations import migrate
from shared.kafka.apply_topics import apply_topics
from tests.faults.breaking.clock import faketime_environment, remove_leftovers
from tests.faults.breaking.failpoints import Failpoints
from tests.faults.breaking.proxy import Proxy
from tests.faults.breaking.smtp_sink import SmtpSink
from tests.faults.timeline import Timeline

PARTITIONS: Final = 4
"""Partitions of every topic at the start; faults add some to `signatures.submitted`."""

_SETTINGS: Final = {
    # Short sessions, leases and retries: a fault lasts seconds, and must last longer than they do.
    "KAFKA_SESSION_TIMEOUT_MS": "3000",
    "DRAIN_SECONDS": "3",
    "NOTIFY_COALESCE_SECONDS": "0.5",
    "NOTIFY_SMTP_TIMEOUT_SECONDS": "2",
    "NOTIFY_LEASE_SECONDS": "4",
    "NOTIFY_POLL_SECONDS": "0.3",
    "NOTIFY_RETRY_FIRST_SECONDS": "0.5",
    "NOTIFY_RETRY_MOST_SECONDS": "2",
    # Small batches: a fault always falls between some of them.
    "VERIFY_MAX_RECORDS": "300",
    "TALLY_MAX_RECORDS": "300",
    # Audits heal what was written by hand. When one heals a run's own petition, its log line has no rule that explains it:
    # the protocol itself failed to keep the count.
    "TALLY_AUDIT_SECONDS": "2",
    "INGEST_CLIENT_RATE": "off",
    "INGEST_WRONG_CREDENTIALS_RATE": "off",
}

Command = Callable[[ServiceName], Sequence[str | Path]]


class _Service(ServiceProcess):
    """A service that is started by a command of the world, such as a deliberately broken one."""

    def __init__(
        self, service: ServiceName, command: Command | None, environment: Mapping[str, str], logs: Path, instance: int
    ) -> None:
        super().__init__(service, environment=environment, log_dir=logs, instance=instance)
        self._other_command = command

    def _command(self) -> Sequence[str | Path]:
        return self._other_command(self.service) if self._other_command else super()._command()


class World:
    """The system: `async with World(...) as world` starts everything, and stops it at the end.

    Args:
        state_dir: for data, logs and the timeline; logs and timeline are kept.
        service_command: a command to run instead of the service itself.
        settings: further settings of the services.

    Attributes:
        kafka, valkey, postgres, smtp: the parts.
        proxies: by part: ``kafka``, ``redis``, ``postgres``, ``smtp``.
        bootstrap_servers, redis_url, postgres_url: where the harness reaches the parts, without a proxy.
        environment: the services' environment variables.
        services: the instances of every service; the first always exists.
        failpoints: arms points inside the services.
        clock: the file with the offset of the services' clocks.
        timeline: records events.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        service_command: Command | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.state_dir = state_dir.resolve()
        data, self.logs = self.state_dir / "data", self.state_dir / "logs"
        for leftover in (data, self.logs):
            shutil.rmtree(leftover, ignore_errors=True)
        self.logs.mkdir(parents=True)
        data.mkdir()
        self.timeline = Timeline(self.state_dir / "timeline.jsonl")
        self.failpoints = Failpoints(data / "failpoints")
        self.clock = data / "clock"
        self._service_command = service_command

        kafka_for_services = free_port()
        kafka_proxy = Proxy("kafka", LOOPBACK, kafka_for_services)
        self.kafka = ApacheKafka(
            data_dir=data / "kafka",
            log_dir=self.logs,
            services_port=kafka_for_services,
            services_advertised_port=kafka_proxy.port,
        )
        self.valkey = Valkey(data_dir=data / "valkey", log_dir=self.logs)
        self.postgres = Postgres(data_dir=data / "postgres", log_dir=self.logs)
        self.smtp = SmtpSink()
        self.proxies = {
            "kafka": kafka_proxy,
            "redis": Proxy("redis", LOOPBACK, self.valkey.port),
            "postgres": Proxy("postgres", LOOPBACK, self.postgres.port),
            "smtp": Proxy("smtp", LOOPBACK, self.smtp.port),
        }
        self.bootstrap_servers = self.kafka.bootstrap_servers
        self.redis_url, self.postgres_url = self.valkey.url, self.postgres.url
        self.admin_token, self.api_key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{kafka_proxy.port}",
            "REDIS_URL": self._through("redis", self.redis_url, self.valkey.port),
            "POSTGRES_URL": self._through("postgres", self.postgres_url, self.postgres.port),
            "SMTP_URL": f"smtp://{LOOPBACK}:{self.proxies['smtp'].port}",
            "SIGNER_PEPPER": secrets.token_urlsafe(32),
            "ADMIN_TOKEN": self.admin_token,
            "API_KEYS": self.api_key,
            **self.failpoints.environment,
            **faketime_environment(self.clock),
            **_SETTINGS,
            **(settings or {}),
        }
        self.services: dict[ServiceName, list[ServiceProcess]] = {
            service: [self._instance(service, 1)] for service in SERVICES
        }
        for (first,) in self.services.values():
            self.environment.update(first.environment)
        self._instances = 1
        self._turn: TextIO | None = None
        self.http = httpx.AsyncClient(timeout=10, verify=False, trust_env=False)  # plain HTTP, on loopback

    def _through(self, part: str, url: str, port: int) -> str:
        """The address of a part's proxy."""
        return url.replace(f"{LOOPBACK}:{port}", f"{LOOPBACK}:{self.proxies[part].port}")

    def _instance(self, service: ServiceName, number: int) -> ServiceProcess:
        return _Service(service, self._service_command, self.environment, self.logs, number)

    @property
    def parts(self) -> list[Process]:
        """Kafka, Valkey and PostgreSQL."""
        return [self.kafka, self.valkey, self.postgres]

    @property
    def service_processes(self) -> list[ServiceProcess]:
        """All instances of all services."""
        return [process for instances in self.services.values() for process in instances]

    async def start(self) -> Self:
        """Start everything and wait until it is ready.

        Raises:
            PartFailed: something did not start.
        """
        await asyncio.to_thread(self._wait_for_my_turn)
        try:
            await asyncio.gather(*(part.start() for part in self.parts), self.smtp.start())
            await asyncio.gather(*(proxy.start() for proxy in self.proxies.values()))
            await migrate(self.postgres_url)
            await apply_topics(self.bootstrap_servers, partitions=PARTITIONS)
            await asyncio.gather(*(service.start() for service in self.service_processes))
        except BaseException:
            await self.stop()
            raise
        return self

    def _wait_for_my_turn(self) -> None:
        """Only one world at a time on a machine: two would starve each other, and timeouts would look like faults."""
        self._turn = (Path(tempfile.gettempdir()) / "groundswell-world.lock").open("w")
        fcntl.flock(self._turn, fcntl.LOCK_EX)  # released by `stop`, or when this process ends in any way

    async def stop(self) -> None:
        """Stop everything and remove its data."""
        for process in (*self.service_processes, *self.parts):
            process.resume()
        await asyncio.gather(*(service.stop() for service in self.service_processes))
        await asyncio.gather(*(proxy.stop() for proxy in self.proxies.values()))
        await asyncio.gather(*(part.stop() for part in self.parts), self.smtp.stop())
        await self.http.aclose()
        self.postgres.remove_data()
        shutil.rmtree(self.state_dir / "data", ignore_errors=True)
        remove_leftovers()
        if self._turn is not None:
            self._turn.close()  # the next world may start, perhaps in this process
            self._turn = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def add_instance(self, service: ServiceName) -> ServiceProcess:
        """Start another instance of a service and wait until it is ready.

        Raises:
            PartFailed: it did not become ready.
        """
        self._instances += 1
        process = self._instance(service, self._instances)
        self.services[service].append(process)
        self.timeline.note("instance joins", service=service, name=process.name)
        try:
            await process.start()
        except BaseException:
            self.services[service].remove(process)
            raise
        return process

    async def remove_instance(self, process: ServiceProcess) -> None:
        """Stop an instance that was added, gracefully."""
        process.resume()
        code = await process.stop()
        with contextlib.suppress(ValueError):
            self.services[process.service].remove(process)
        self.timeline.note("instance left", name=process.name, exit_code=code)

    async def is_ready(self) -> None:
        """Wait until every service is ready, without help.

        Raises:
            PartFailed: one is not, `Process.start_seconds` from now, or has ended.
        """
        await asyncio.gather(*(process.wait_ready() for process in self.service_processes))

    async def not_ready(self) -> list[str]:
        """The services whose `/readyz` is not `ready` at this moment, each with the reason; degraded is not ready here."""
        names = []
        for process in list(self.service_processes):
            try:
                answer = await self.http.get(f"{process.url}/readyz")
            except httpx.TransportError as error:
                names.append(f"{process.name}: {type(error).__name__}")
                continue
            if answer.json()["status"] != "ready":  # degraded: 200, but something is away
                names.append(f"{process.name}: {answer.text[:300]}")
        return names

    @property
    def ingest_urls(self) -> list[str]:
        """Where signatures may be sent to, at this moment."""
        return [process.url for process in self.services["ingest"]]

    @property
    def tally_url(self) -> str:
        """Where counts are read."""
        return self.services["tally"][0].url

    @property
    def admin(self) -> dict[str, str]:
        """Headers of an administrator."""
        return {"authorization": f"Bearer {self.admin_token}"}
