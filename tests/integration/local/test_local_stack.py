"""Each part of the embedded stack alone: it starts, does its work, dies, and has its data again."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from email.message import EmailMessage
from pathlib import Path
from typing import IO

import aiosmtplib
import asyncpg
import httpx
import psutil
import pytest
import redis.asyncio
import redis.exceptions
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deploy.local.leftovers import Processes
from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.embedded_kafka import EmbeddedKafka, TopicFiles
from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.mail_catcher import MailCatcher
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.process import PartFailed, Process
from deploy.local.parts.valkey import Valkey
from deploy.local.state import StackState

TOPIC = "some.topic.v1"


async def make_topic(broker: KafkaBroker) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 3, 1)])
    await admin.close()


async def produce(broker: KafkaBroker, *values: bytes) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=broker.idempotence
    )
    async with producer:
        for value in values:
            await producer.send_and_wait(TOPIC, value, key=value)


async def consume(broker: KafkaBroker, count: int, *, group: str) -> set[bytes]:
    """Read `count` values in a consumer group and commit."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    values: set[bytes] = set()
    async with consumer, asyncio.timeout(60):
        while len(values) < count:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values.update(record.value for record in records if record.value is not None)
        await consumer.commit()
    return values


async def test_the_embedded_broker_carries_records_to_a_consumer_group(tmp_path: Path) -> None:
    async with EmbeddedKafka(log_dir=tmp_path) as broker:
        await make_topic(broker)
        await produce(broker, b"one", b"two")
        assert await consume(broker, 2, group="readers") == {b"one", b"two"}


async def test_the_embedded_broker_answers_again_after_a_kill_with_nothing_kept(tmp_path: Path) -> None:
    async with EmbeddedKafka(log_dir=tmp_path) as broker:
        await make_topic(broker)
        address = broker.bootstrap_servers
        await broker.kill()
        await broker.start()
        assert broker.bootstrap_servers == address
        await make_topic(broker)  # the topic is gone, so it can be made again
        await produce(broker, b"three")
        assert await consume(broker, 1, group="readers") == {b"three"}


async def test_the_embedded_broker_with_files_has_its_records_and_offsets_again_after_a_kill_of_both(
    tmp_path: Path,
) -> None:
    async with (
        TopicFiles(data_dir=tmp_path / "kafka", log_dir=tmp_path, token="the token") as files,
        EmbeddedKafka(log_dir=tmp_path, files=files) as broker,
    ):
        await make_topic(broker)
        await produce(broker, b"one", b"two")
        assert await consume(broker, 2, group="readers") == {b"one", b"two"}
        await broker.kill()
        await broker.start()
        await produce(broker, b"three")
        assert await consume(broker, 1, group="readers") == {b"three"}, "the group's offsets were kept"
        await broker.kill()
        await files.kill()
        await files.start()
        await broker.start()
        assert await consume(broker, 3, group="late readers") == {b"one", b"two", b"three"}


async def test_a_record_whose_batch_a_killed_broker_did_not_write_holds_nobody_up(tmp_path: Path) -> None:
    async with (
        TopicFiles(data_dir=tmp_path / "kafka", log_dir=tmp_path, token="the token") as files,
        EmbeddedKafka(log_dir=tmp_path, files=files) as broker,
    ):
        await make_topic(broker)
        await produce(broker, b"one")
        await broker.kill()
        (batch,) = (tmp_path / "kafka").glob("clusters/*/topics/*/partitions/*/records/*.batch")
        batch.unlink()  # as if the broker had been killed between moving the end and writing the batch
        await broker.kill()
        await files.restart()
        await broker.start()
        assert "taken back, as they were never acknowledged: " in broker.log_tail()
        await produce(broker, b"one")  # as its producer does, which had no acknowledgement
        assert await consume(broker, 1, group="readers") == {b"one"}
        reader = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
        async with reader:
            ends = await reader.end_offsets([TopicPartition(TOPIC, partition) for partition in range(3)])
        assert sorted(ends.values()) == [0, 0, 1], "no end lies beyond what is there"


async def test_records_after_a_gap_that_a_failed_write_left_are_read(tmp_path: Path) -> None:
    async with (
        TopicFiles(data_dir=tmp_path / "kafka", log_dir=tmp_path, token="the token") as files,
        EmbeddedKafka(log_dir=tmp_path, files=files) as broker,
    ):
        await make_topic(broker)
        producer = AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=broker.idempotence
        )
        async with producer:
            for value in (b"one", b"two", b"three"):
                await producer.send_and_wait(TOPIC, value, partition=0)
        # The object store was away for this batch and back for the next: "two" was never acknowledged.
        batches = (tmp_path / "kafka").glob("clusters/*/topics/*/partitions/*/records/*.batch")
        lost = next(batch for batch in batches if b"two" in batch.read_bytes())
        lost.unlink()
        await broker.stop()
        await files.restart()
        await broker.start()
        assert await consume(broker, 2, group="readers") == {b"one", b"three"}


@pytest.mark.usefixtures("needs_apache")
async def test_apache_kafka_has_its_records_and_offsets_again_after_stop_and_kill(tmp_path: Path) -> None:
    async with ApacheKafka(data_dir=tmp_path / "kafka", log_dir=tmp_path) as broker:
        await make_topic(broker)
        await produce(broker, b"one", b"two")
        assert await consume(broker, 2, group="readers") == {b"one", b"two"}

        await broker.restart()
        await produce(broker, b"three")
        assert await consume(broker, 1, group="readers") == {b"three"}, "the group's offsets were kept"

        await broker.kill()
        await broker.start()
        assert await consume(broker, 3, group="late readers") == {b"one", b"two", b"three"}


@pytest.mark.usefixtures("needs_apache")
async def test_apache_kafka_makes_no_topic_by_itself(tmp_path: Path) -> None:
    async with ApacheKafka(data_dir=tmp_path / "kafka", log_dir=tmp_path) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        await admin.describe_topics(["signatures.submited.v1"])  # asking for a topic is what would make it
        assert "signatures.submited.v1" not in await admin.list_topics()
        await admin.close()


async def test_valkey_has_its_counts_again_after_stop_and_kill(tmp_path: Path) -> None:
    async with Valkey(data_dir=tmp_path / "valkey", log_dir=tmp_path) as server:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.hincrby("count", "total", 41)
        await server.restart()
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.hincrby("count", "total", 1)
        await server.kill()
        await server.start()
        async with redis.asyncio.Redis.from_url(server.url) as client:
            assert await client.hget("count", "total") == b"42"


async def test_valkey_serves_nobody_without_the_password(tmp_path: Path) -> None:
    async with (
        Valkey(data_dir=tmp_path / "valkey", log_dir=tmp_path) as server,
        redis.asyncio.Redis(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
    ):
        with pytest.raises(redis.exceptions.AuthenticationError):
            await stranger.ping()


async def test_postgres_has_its_rows_again_after_stop_and_kill(tmp_path: Path) -> None:
    server = Postgres(data_dir=tmp_path / "postgres", log_dir=tmp_path)
    try:
        async with server:
            connection = await asyncpg.connect(await server.create_database("one"))
            await connection.execute("CREATE TABLE kept (what text PRIMARY KEY)")
            await connection.execute("INSERT INTO kept VALUES ('before the stop')")
            await server.restart()  # a client is still connected: it must not hold the stop up
            connection = await asyncpg.connect(server.url_of("one"))
            await connection.execute("INSERT INTO kept VALUES ('before the kill')")
            await server.kill()
            await server.start()
            connection = await asyncpg.connect(server.url_of("one"))
            rows = await connection.fetch("SELECT what FROM kept ORDER BY what")
            assert [row["what"] for row in rows] == ["before the kill", "before the stop"]
            await connection.close()
    finally:
        server.remove_data()
    assert not server.data_dir.exists()


async def test_a_paused_postgres_answers_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    server = Postgres(data_dir=tmp_path / "postgres", log_dir=tmp_path)
    try:
        async with server:
            connection = await asyncpg.connect(server.url)
            server.pause()
            question = asyncio.create_task(connection.fetchval("SELECT 1"))
            await asyncio.sleep(0.3)
            assert not question.done()
            server.resume()
            assert await question == 1
            await connection.close()
    finally:
        server.remove_data()


def a_mail(to: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Groundswell <petitions@groundswell.example>"
    mail["To"] = to
    mail["Subject"] = "1.000 Unterschriften für den Hafen"
    mail["Message-ID"] = "<some-delivery@groundswell.example>"
    mail.set_content("In plain words: süß.")
    mail.add_alternative("<h1>In <em>HTML</em></h1>", subtype="html")
    return mail


async def send(catcher: MailCatcher, to: str) -> None:
    await aiosmtplib.send(a_mail(to), hostname="127.0.0.1", port=catcher.smtp_port)


async def test_the_mail_catcher_shows_what_it_took_and_has_it_again_after_a_kill(tmp_path: Path) -> None:
    async with MailCatcher(data_dir=tmp_path / "mailbox", log_dir=tmp_path) as catcher:
        await send(catcher, "harbour@council.example")
        await catcher.kill()
        await catcher.start()
        await send(catcher, "other@council.example")

        first, second = await catcher.messages()
        assert first.rcpt_to == ["harbour@council.example"]
        assert first.mail_from == "petitions@groundswell.example"
        assert first.subject == "1.000 Unterschriften für den Hafen"
        assert first.headers["Message-ID"] == "<some-delivery@groundswell.example>"
        assert first.text == "In plain words: süß.\n"
        assert "<h1>In <em>HTML</em></h1>" in first.html
        assert second.id == first.id + 1
        assert await catcher.messages(to="other@council.example") == [second]

        async with httpx.AsyncClient(base_url=catcher.page_url) as browser:
            assert "2 mails caught" in (await browser.get("/")).text
            assert "harbour@council.example" in (await browser.get(f"/messages/{first.id}")).text
            page = await browser.get(f"/messages/{first.id}/html")
            assert "<h1>In <em>HTML</em></h1>" in page.text
            assert "sandbox" in page.headers["Content-Security-Policy"]
            assert (await browser.get("/messages/999")).status_code == 404

        await catcher.clear()
        assert await catcher.messages() == []


async def test_the_mail_catcher_defers_and_refuses_when_asked_to(tmp_path: Path) -> None:
    async with MailCatcher(data_dir=tmp_path / "mailbox", log_dir=tmp_path) as catcher:
        for address, code in (("defer451@council.example", 451), ("refuse550@council.example", 550)):
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
                await send(catcher, address)
            assert refused.value.recipients[0].code == code

        await catcher.refuse({"harbour@council.example": "452 mailbox full"})
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await send(catcher, "harbour@council.example")
        assert refused.value.recipients[0].code == 452
        await catcher.refuse({})
        await send(catcher, "harbour@council.example")
        assert len(await catcher.messages()) == 1


async def test_a_stopped_part_and_its_children_are_gone(tmp_path: Path) -> None:
    server = Postgres(data_dir=tmp_path / "postgres", log_dir=tmp_path)
    try:
        await server.start()
        assert server.pid is not None
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert len(family) > 1
        assert await server.stop() == 0
        assert not any(member.is_running() for member in family)
        assert server.cpu_seconds() > 0
    finally:
        server.remove_data()


async def test_a_part_that_cannot_start_says_so_with_the_end_of_its_log(tmp_path: Path) -> None:
    async with Valkey(data_dir=tmp_path / "first", log_dir=tmp_path / "first") as server:
        rival = Valkey(data_dir=tmp_path / "second", log_dir=tmp_path / "second", port=server.port)
        with pytest.raises(PartFailed, match="valkey ended with exit code 1") as failed:
            await rival.start()
        assert "Address already in use" in str(failed.value)
        assert not rival.running


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_part_outlives_the_process_that_started_it(tmp_path: Path, ending: str) -> None:
    script = f"""
        import asyncio, os, signal, sys
        from pathlib import Path
        from deploy.local.parts.embedded_kafka import EmbeddedKafka, TopicFiles
        from deploy.local.parts.valkey import Valkey

        async def main():
            for part in (EmbeddedKafka(log_dir=Path(".")), Valkey(data_dir=Path("valkey"), log_dir=Path("."))):
                await part.start()
                print(part.pid, flush=True)

        asyncio.run(main())
        {ending}
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False
    )
    pids = [int(line) for line in run.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, "a part still runs 60 s after its parent has ended"
        time.sleep(0.05)


async def test_the_shared_parts_of_the_test_run_answer(
    kafka: KafkaBroker, valkey: Valkey, postgres: Postgres, mailbox: MailCatcher
) -> None:
    parts: list[Process] = [kafka, valkey, postgres, mailbox]
    assert all(part.running for part in parts)
    variables = {name for part in parts for name in part.environment}
    assert variables == {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_IDEMPOTENCE", "REDIS_URL", "POSTGRES_URL", "SMTP_URL"}


def lines_of(pipe: IO[str], until: str) -> list[str]:
    """Read lines up to the first that contains `until`."""
    lines = []
    for line in pipe:
        lines.append(line)
        if until in line:
            return lines
    raise AssertionError(f"ended without {until!r}: {''.join(lines)}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_that_is_stopped_while_it_starts_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "deploy.cli", "up", "--any-ports", "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        lines_of(up.stderr, until="is ready")
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) > 1
        up.send_signal(number)
        assert "stopped" in up.stderr.read()
        assert up.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    kept = {"data", "kept.json", "lock", "logs", "processes.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert Processes.model_validate_json((tmp_path / "processes.json").read_text()).processes == []


async def test_the_stack_uses_the_parts_it_is_given_and_kills_none_of_them(
    tmp_path: Path, valkey: Valkey, postgres: Postgres, mailbox: MailCatcher
) -> None:
    parts = {
        "REDIS_URL": valkey.url,
        "POSTGRES_URL": await postgres.create_database("given_to_the_stack"),
        "SMTP_URL": mailbox.url,
    }
    command = [sys.executable, "-m", "deploy.cli", "up", "--json", "--any-ports", "--state-dir", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **parts}
    ) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        state = StackState.model_validate_json(await asyncio.to_thread(up.stdout.readline))
        assert state == StackState.read(tmp_path)
        services = {"ingest", "verify", "tally", "notify"}
        assert {process.name for process in state.processes} == {"kafka-files", "kafka", *services}
        assert (state.broker, state.redis_url, state.postgres_url, state.mailbox_url) == (
            "embedded",
            parts["REDIS_URL"],
            parts["POSTGRES_URL"],
            None,
        )
        async with httpx.AsyncClient() as client:
            for url in (state.ingest_url, state.verify_url, state.tally_url, state.notify_url):
                assert (await client.get(f"{url}/readyz")).status_code == 200

        for name, variable in (("redis", "REDIS_URL"), ("postgres", "POSTGRES_URL"), ("mail", "SMTP_URL")):
            kill = [sys.executable, "-m", "deploy.cli", "kill", name, "--state-dir", str(tmp_path)]
            killed = await asyncio.to_thread(subprocess.run, kill, capture_output=True, text=True, check=False)
            assert killed.returncode == 1
            assert f"{variable} was in its environment" in killed.stderr
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    assert not any(psutil.pid_exists(process.pid) for process in state.processes)
    assert all(part.running for part in (valkey, postgres, mailbox))
    with pytest.raises(FileNotFoundError):
        StackState.read(tmp_path)
