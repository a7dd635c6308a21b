"""ingest while Kafka or PostgreSQL is away, and during its stop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.ports import free_port
from shared.kafka.apply_topics import apply_topics
from tests.support.running_ingest import Ingest, ingest_process

_NOBODY = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    """A broker of the test's own, not started: these tests take it away."""
    own = EmbeddedKafka(log_dir=tmp_path, port=free_port())
    try:
        yield own
    finally:
        own.resume()
        await own.stop()


@pytest.fixture
async def ingest(broker: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[Ingest]:
    """An ingest, launched and not waited for."""
    process = ingest_process(broker, postgres_url=_NOBODY, log_dir=tmp_path)
    await process.launch()
    try:
        async with httpx.AsyncClient(base_url=process.url, timeout=30) as http:
            while True:
                try:
                    await http.get("/livez")
                except httpx.TransportError:
                    assert process.running, process.describe_end()
                    await asyncio.sleep(0.05)
                else:
                    break
            yield Ingest(process, broker, http, _NOBODY)
    finally:
        await process.stop()


async def test_started_before_kafka_it_says_what_is_missing_and_takes_up_work_when_kafka_comes(
    ingest: Ingest, broker: EmbeddedKafka
) -> None:
    assert (await ingest.http.get("/livez")).status_code == 200
    not_ready = await ingest.http.get("/readyz")
    assert not_ready.status_code == 503
    assert not_ready.json()["checks"]["kafka"] != "ok"
    refused = await ingest.sign("night-trains")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")

    await broker.start()
    await apply_topics(broker.bootstrap_servers)
    await ingest.process.wait_ready()
    checks = (await ingest.http.get("/readyz")).json()["checks"]
    assert checks["kafka"] == checks["catalogue"] == "ok"
    assert checks["postgres"] != "ok"  # named, and no reason to turn signatures away
    await ingest.publish_petition("night-trains")
    accepted = await ingest.sign("night-trains")
    assert accepted.status_code == 202
    status = await ingest.http.get(accepted.headers["location"])
    assert (status.status_code, status.headers["retry-after"]) == (503, "5")


async def test_nobody_waits_longer_than_ten_seconds_for_a_broker_or_a_body_that_does_not_come(
    ingest: Ingest, broker: EmbeddedKafka
) -> None:
    await broker.start()
    await apply_topics(broker.bootstrap_servers)
    await ingest.process.wait_ready()
    await ingest.publish_petition("night-trains")
    assert (await ingest.sign("night-trains")).status_code == 202

    broker.pause()
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", ingest.process.port)
    writer.write(
        b"POST /v1/petitions/night-trains/signatures HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    refused, slow = await asyncio.gather(ingest.sign("night-trains"), reader.readline())
    assert time.monotonic() - started < 60  # both were ended here: nothing else would end them
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json()["type"].endswith("kafka_away")
    assert slow.startswith(b"HTTP/1.1 408")
    writer.close()
    assert (await ingest.http.get("/readyz")).status_code == 503

    broker.resume()
    async with asyncio.timeout(30):
        while (await ingest.sign("night-trains")).status_code != 202:
            await asyncio.sleep(0.2)


async def test_asked_to_stop_it_answers_what_it_has_in_hand_and_ends_with_code_0(
    ingest: Ingest, broker: EmbeddedKafka
) -> None:
    await broker.start()
    await apply_topics(broker.bootstrap_servers)
    await ingest.process.wait_ready()
    await ingest.publish_petition("night-trains")
    broker.pause()
    in_hand = [asyncio.create_task(ingest.sign("night-trains", email=f"s{n}@mail.example")) for n in range(20)]
    while await ingest.metric("groundswell_ingest_in_flight_requests") < 20:
        await asyncio.sleep(0.05)
    ingest.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert ingest.process.running
    broker.resume()
    answers = await asyncio.gather(*in_hand)
    assert {answer.status_code for answer in answers} == {202}
    assert await ingest.process.wait(60) == 0
    assert len(await ingest.published("night-trains")) == 20
