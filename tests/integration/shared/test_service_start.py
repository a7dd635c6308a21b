"""How a service starts and stops: while Kafka is away, while a topic is missing, and when something is a bug."""

import asyncio
import gc
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry

from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.ports import free_port
from shared.contract.topics import Topic
from shared.kafka.consuming.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.producing.producer import EventProducer
from shared.runtime.parts import Part
from shared.runtime.readiness import Waiting
from shared.service import Base, Service
from tests.support.consuming import (
    Batch,
    decode_number,
    group_of,
    make_topic,
    new_topic,
    numbers,
    settings_for,
    unmade_topic,
    write,
)
from tests.support.waiting import eventually


class Running:
    """A service with a batch consumer for each of some topics, in this process."""

    def __init__(
        self,
        kafka: KafkaBroker,
        *topics: Topic,
        process: Callable[[Batch], Awaitable[None]] | None = None,
        drain_seconds: float = 2,
    ):
        settings = settings_for(kafka, drain_seconds=drain_seconds)
        self.numbers: list[int] = []
        base = Base("test", settings, CollectorRegistry())
        self.broker = base.broker
        producer = EventProducer(settings)

        async def note(batch: Batch) -> None:
            self.numbers.extend(received.value for received in batch)

        self.consumers = [
            BatchConsumer(
                topic=topic,
                group=group_of(topic),
                decode=decode_number,
                process=process or note,
                producer=producer,
                metrics=ConsumerMetrics(CollectorRegistry()),
                settings=settings,
                on_bug=base.crash.fail,
                limits=ConsumerLimits(max_records=10),
            )
            for topic in topics
        ]
        for consumer in self.consumers:
            consumer.subscribe(self.broker)

        async def consuming() -> str | Waiting | None:
            return next(iter([why for consumer in self.consumers if (why := await consumer.check())]), None)

        self.service = Service(
            base,
            port=free_port(),
            parts=[
                Part(run=producer.start_when_reachable, close=producer.stop),
                *[Part(stop=consumer.drain) for consumer in self.consumers],
            ],
            checks={"kafka": self.consumers[0].check_brokers, "consumer": consuming},
        )
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.service.port}")

    async def __aenter__(self) -> "Running":
        self.serving = asyncio.create_task(self.service.serve())
        await eventually(self._serves, "HTTP is served")
        return self

    async def _serves(self) -> bool:
        try:
            return (await self.http.get("/livez")).status_code == 200
        except httpx.TransportError:
            assert not self.serving.done(), "it ended"
            return False

    async def ready(self) -> tuple[int, str]:
        """The answer of /readyz: the status, and what is wrong with Kafka, or else with the consumer."""
        answer = await self.http.get("/readyz")
        checks = answer.json()["checks"]
        return answer.status_code, checks["kafka"] if checks["kafka"] != "ok" else checks["consumer"]

    async def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        return (await self.ready())[0] == 200

    async def stop(self) -> int:
        """Stop the service as a signal would. Returns the exit code."""
        assert self.service._server is not None
        self.service._server.should_exit = True
        async with asyncio.timeout(60):
            return await self.serving

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.stop()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[AIOKafkaConsumer]:
    """Every Kafka consumer that starts during the test."""
    started: list[AIOKafkaConsumer] = []
    start = AIOKafkaConsumer.start

    async def noted(self: AIOKafkaConsumer) -> None:
        started.append(self)
        await start(self)

    monkeypatch.setattr(AIOKafkaConsumer, "start", noted)
    return started


async def test_a_service_that_starts_while_kafka_is_away_serves_http_and_consumes_once_kafka_is_there(
    tmp_path: Path,
) -> None:
    kafka = EmbeddedKafka(log_dir=tmp_path)
    topic = unmade_topic()
    async with Running(kafka, topic) as running:
        assert (await running.ready())[0] == 503
        await asyncio.sleep(0.5)  # at least one try more
        assert await running.ready() == (503, "Kafka is away: ConnectionRefusedError")
        async with kafka:
            await make_topic(kafka, topic)
            await write(kafka, topic.name, numbers(3))
            await eventually(lambda: running.numbers == [0, 1, 2], "consumed")
            assert await running.ready() == (200, "ok")
            assert await running.stop() == 0


async def test_a_service_that_is_stopped_while_kafka_is_away_ends_at_once_with_exit_code_0(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Running(EmbeddedKafka(log_dir=tmp_path), unmade_topic()) as running:
            await asyncio.sleep(0.3)
            asked = time.monotonic()
            assert await running.stop() == 0
            assert time.monotonic() - asked < 30
        gc.collect()
    assert [str(warning.message) for warning in caught if "Unclosed AIOKafka" in str(warning.message)] == []


@pytest.mark.usefixtures("needs_apache")
async def test_when_one_topic_is_missing_for_a_while_no_other_is_read_by_two_consumers_of_one_process(
    kafka: KafkaBroker, clients: list[AIOKafkaConsumer]
) -> None:
    there, missing = [await new_topic(kafka) for _ in range(3)], unmade_topic()
    running = Running(kafka, *there, missing)
    running.broker._connection_kwargs["request_timeout_ms"] = 400  # how long a client waits for a topic to appear
    async with running:
        # At least one retry after others had started.
        await eventually(lambda: len(clients) > 4 and len({*clients[0].subscription()}) == 1, "tried again")
        await make_topic(kafka, missing)
        await eventually(running.is_ready, "ready")
        alive = [topic for client in clients if not client._closed for topic in client.subscription()]
        assert sorted(alive) == sorted(topic.name for topic in [*there, missing])
        for start, topic in enumerate([*there, missing]):
            await write(kafka, topic.name, numbers(2, start=2 * start))
        await eventually(lambda: sorted(running.numbers) == list(range(8)), "each record once")
        assert await running.stop() == 0
    assert all(client._closed for client in clients)


async def test_an_unexpected_error_at_the_start_ends_the_process_with_exit_code_1(tmp_path: Path) -> None:
    running = Running(EmbeddedKafka(log_dir=tmp_path), unmade_topic())

    async def broken() -> None:
        raise KeyError("a bug")

    running.broker.start = broken  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        assert await running.service.serve() == 1


async def test_a_bug_in_a_batch_ends_the_process_with_exit_code_1(kafka: KafkaBroker) -> None:
    async def broken(_: Batch) -> None:
        raise KeyError("a bug")

    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    async with asyncio.timeout(60):
        assert await Running(kafka, topic, process=broken).service.serve() == 1


async def test_a_service_that_stops_lets_the_batch_in_hand_finish(kafka: KafkaBroker) -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def slow(_: Batch) -> None:
        begun.set()
        await asyncio.sleep(0.5)
        done.set()

    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    async with Running(kafka, topic, process=slow) as running:
        await begun.wait()
        assert await running.stop() == 0
    assert done.is_set()


async def test_a_held_batch_does_not_keep_a_service_from_stopping(kafka: KafkaBroker) -> None:
    async def away(_: Batch) -> None:
        raise ConnectionError("away")

    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    async with Running(kafka, topic, process=away, drain_seconds=300) as running:
        await eventually(lambda: running.consumers[0].why_not_consuming() == "batch held: ConnectionError", "held")
        assert await running.ready() == (503, "batch held: ConnectionError")
        asked = time.monotonic()
        assert await running.stop() == 0
        assert time.monotonic() - asked < 60, "far less than the drain budget"


_A_SERVICE_THAT_CANNOT_STOP = """
    import asyncio, sys
    from shared import service
    from shared.runtime import process
    from shared.runtime.parts import Part
    from shared.runtime.settings import CommonSettings

    process._SLACK_SECONDS = 0.2
    settings = CommonSettings(kafka_bootstrap_servers="127.0.0.1:1", drain_seconds=0.2)
    service.configure_logging(settings, "stuck")

    async def waits_for_ever():
        await asyncio.Event().wait()

    parts = [Part(close=waits_for_ever)]
    made = service.Service(service.Base("stuck", settings), port=int(sys.argv[1]), parts=parts, checks={})
    sys.exit(made.run())
"""


async def test_a_stop_that_hangs_is_ended_and_says_where_it_hung() -> None:
    port = free_port()
    command = [sys.executable, "-c", dedent(_A_SERVICE_THAT_CANNOT_STOP), str(port)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(30), httpx.AsyncClient() as http:
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{port}/livez")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 1
    assert "stop_hangs" in said.decode()
    assert "waits_for_ever" in said.decode(), "the place where it waits"
