"""All of Groundswell on one machine: parts, topics, tables and services, started and stopped together."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from deploy.local import STATE_DIR
from deploy.local.assembly import Assembly
from deploy.local.parts.kafka import BrokerKind
from deploy.local.parts.process import PartFailed, Process
from deploy.local.parts.service import SERVICES, ServiceName, ServiceProcess
from deploy.local.place import Place, claim
from deploy.local.prepare import make_tables, make_topics
from deploy.local.state import RunningProcess, StackState, start_of

_WATCH_SECONDS = 0.2


class Stack:
    """The local stack; `async with Stack(...) as stack` starts it and stops it.

    A part whose address is in `environ` (`KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL`, `POSTGRES_URL`, `SMTP_URL`) is not
    started; the address is used. `SIGNER_PEPPER`, `ADMIN_TOKEN` and `API_KEYS` are used if set; otherwise they are random.
    The parts' data is new at every start and removed at the end; logs are kept.

    With a `place`, data, ports and secrets are those of the last stack there, and are kept for the next.

    Args:
        broker: which Kafka broker to start.
        state_dir: the directory of data, logs and `stack.json`, for one stack at a time.
        environ: the environment with addresses and secrets.
        instances: the number of processes of a service, if not one.
        service_environment: further settings of the services.
        report: called with a line for people at every step.
        place: keeps data, ports and secrets; it must be open and prepared, and in `state_dir`.

    Attributes:
        kafka, valkey, postgres, mailbox: the parts; None where an external address stands in.
        services: the processes of every service.
        environment: the variables of the services.
    """

    def __init__(
        self,
        *,
        broker: BrokerKind = "embedded",
        state_dir: Path = STATE_DIR,
        environ: Mapping[str, str] = os.environ,
        instances: Mapping[ServiceName, int] | None = None,
        service_environment: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
        place: Place | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._report = report
        self._place = place
        self._lock: IO[str] | None = None
        self._not_ready: set[str] = set()
        self._is_up = False
        data, logs = state_dir / "data", state_dir / "logs"

        parts = Assembly(broker=broker, data=data, logs=logs, environ=environ, place=place)
        self.kafka, self.kafka_files = parts.kafka, parts.kafka_files
        self.valkey, self.postgres, self.mailbox = parts.valkey, parts.postgres, parts.mailbox
        self.environment, self._external = parts.environment, parts.external
        self.environment.update(service_environment or {})
        counts: Mapping[ServiceName, int] = instances or {}
        self.services: dict[ServiceName, list[ServiceProcess]] = {
            service: [
                ServiceProcess(
                    service,
                    environment=self.environment,
                    log_dir=logs,
                    instance=number,
                    port=None if place is None or number > 1 else place.port(service),
                )
                for number in range(1, counts.get(service, 1) + 1)
            ]
            for service in SERVICES
        }
        for instances_of_service in self.services.values():
            self.environment.update(instances_of_service[0].environment)
        for process in self.processes:
            process.on_launch = self._note_processes

    @property
    def parts(self) -> list[Process]:
        """The processes that the stack starts besides the services, in the order of starting."""
        parts = (self.kafka_files, self.kafka, self.valkey, self.postgres, self.mailbox)
        return [part for part in parts if part is not None]

    def needs(self, process: Process) -> list[Process]:
        """The parts that must run before `process` can start."""
        if process in self.service_processes:
            return self.parts
        return [self.kafka_files] if process is self.kafka and self.kafka_files is not None else []

    @property
    def service_processes(self) -> list[ServiceProcess]:
        """All instances of all services."""
        return [process for instances in self.services.values() for process in instances]

    @property
    def processes(self) -> list[Process]:
        """Everything that the stack starts, parts first."""
        return [*self.parts, *self.service_processes]

    @property
    def state(self) -> StackState:
        """The content of `stack.json`. The stack must be running."""
        environment = self.environment
        return StackState(
            broker="external" if self.kafka is None else self.kafka.kind,
            pid=os.getpid(),
            started=start_of(os.getpid()),
            supervised=self._place is not None,
            kafka_bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"],
            redis_url=environment["REDIS_URL"],
            postgres_url=environment["POSTGRES_URL"],
            smtp_url=environment["SMTP_URL"],
            ingest_url=self.services["ingest"][0].url,
            verify_url=self.services["verify"][0].url,
            tally_url=self.services["tally"][0].url,
            notify_url=self.services["notify"][0].url,
            mailbox_url=None if self.mailbox is None else self.mailbox.page_url,
            admin_token=environment["ADMIN_TOKEN"],
            api_key=_secret(environment["API_KEYS"].split(",")[0].strip()),
            external=sorted(self._external),
            environment=environment,
            processes=self._running(),
        )

    async def start(self) -> Self:
        """Start everything and wait until all of it is ready.

        Raises:
            PartFailed: a part or service failed; what was started has been stopped again.
        """
        if self._place is None:
            self._claim_state_dir()
        try:
            await _together(*(self._start_parts(group) for group in self._part_groups()))
            if self._place is not None and self.postgres is not None and self.postgres.is_elsewhere:
                self._place.note_postgres_dir(self.postgres.data_dir)
            await self._watched(self._prepare_parts())
            await self._watched(_together(*(self._start_part(service) for service in self.service_processes)))
            self._is_up = True
            self._note_processes()
        except BaseException:
            await self.stop()
            raise
        return self

    async def stop(self) -> None:
        """Stop the services, then their parts; without a place, remove the data."""
        self._is_up = False
        StackState.remove(self._state_dir)
        await asyncio.gather(*(service.stop() for service in self.service_processes))
        await asyncio.gather(*(self._stop_parts(group) for group in self._part_groups()))
        if self._place is not None:
            self._note_processes()
            if self.postgres is not None:
                self.postgres.remove_binaries()
            return
        if self.postgres is not None:
            self.postgres.remove_data()
        if self._lock is not None:
            shutil.rmtree(self._state_dir / "data", ignore_errors=True)
            self._lock.close()
            self._lock = None

    def note_ready(self, process: Process, *, ready: bool) -> None:
        """Note in `stack.json` whether a restarted process is ready."""
        if ready:
            self._not_ready.discard(process.name)
        else:
            self._not_ready.add(process.name)
        self._note_processes()

    async def watch(self) -> NoReturn:
        """Watch until a process ends by itself.

        Raises:
            PartFailed: the report of that process's end.
        """
        while True:
            for process in self.processes:
                if process.ended_by_itself:
                    raise PartFailed(process.describe_end())
            await asyncio.sleep(_WATCH_SECONDS)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _claim_state_dir(self) -> None:
        self._lock = claim(self._state_dir)
        for leftover in ("data", "logs"):  # of a killed stack
            shutil.rmtree(self._state_dir / leftover, ignore_errors=True)

    def _running(self) -> list[RunningProcess]:
        return [
            RunningProcess(
                name=process.name,
                pid=pid,
                log=str(process.log_file),
                address=process.url,
                started=start_of(pid),
                ready=process.name not in self._not_ready,
            )
            for process in self.processes
            if (pid := process.pid) is not None
        ]

    def _note_processes(self) -> None:
        if self._place is not None:
            self._place.note_processes(self._running())
        if self._is_up:
            self.state.write(self._state_dir)

    def _part_groups(self) -> list[list[Process]]:
        """Groups of parts that are started concurrently; within a group they are started in order."""
        return [[*self.needs(part), part] for part in self.parts if part is not self.kafka_files]

    async def _start_parts(self, group: list[Process]) -> None:
        for part in group:
            await self._start_part(part)

    @staticmethod
    async def _stop_parts(group: list[Process]) -> None:
        for part in reversed(group):
            await part.stop()

    async def _start_part(self, part: Process) -> None:
        began = time.monotonic()
        await part.start()
        self._report(f"{part.name} is ready ({time.monotonic() - began:.1f} s)")

    async def _prepare_parts(self) -> None:
        await _together(make_tables(self.environment["POSTGRES_URL"]), make_topics(self.environment))
        self._report("tables and topics are there")

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, but fail at once if a part dies meanwhile: a service would wait long for a dead broker."""
        tasks = {asyncio.create_task(work), asyncio.create_task(self.watch())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _secret(entry: str) -> str:
    """Return the secret of an entry of API_KEYS, which may begin with a name."""
    return entry.partition(":")[2] or entry


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines concurrently; if one fails, cancel the others and raise its exception."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
