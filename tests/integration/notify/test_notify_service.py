"""notify as a process, between a Kafka broker, PostgreSQL and an SMTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.mail_catcher import MailCatcher
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.service import ServiceProcess
from shared.contract.events import MilestoneReached, Organisation, PetitionChanged, Target
from shared.contract.identity import milestone_id
from shared.contract.topics import MILESTONES_REACHED, PETITIONS_CHANGED
from shared.kafka.apply_topics import apply_topics
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from tests.integration.notify.notify_desk import new_database
from tests.support.consuming import settings_for
from tests.support.scripted_smtp import ScriptedSmtp
from tests.support.waiting import eventually


@dataclass
class Town:
    """Everything around notify: who publishes, where rows and mails go."""

    kafka: KafkaBroker
    postgres_url: str
    producer: EventProducer
    log_dir: Path

    @asynccontextmanager
    async def notify(self, smtp_url: str, *, instances: int = 1, **environment: str) -> AsyncIterator[ServiceProcess]:
        """The service, ready. At the end it must stop gracefully."""
        processes = [
            ServiceProcess(
                "notify",
                environment={
                    **self.kafka.environment,
                    "POSTGRES_URL": self.postgres_url,
                    "SMTP_URL": smtp_url,
                    "PUBLIC_PAGES_URL": "https://pages.example",
                    "KAFKA_SESSION_TIMEOUT_MS": "2000",
                    "NOTIFY_COALESCE_SECONDS": "1",
                    "NOTIFY_POLL_SECONDS": "0.05",
                    "NOTIFY_SMTP_TIMEOUT_SECONDS": "1",
                    "NOTIFY_LEASE_SECONDS": "2",
                    "NOTIFY_RETRY_FIRST_SECONDS": "0.1",
                    **environment,
                },
                log_dir=self.log_dir,
                instance=number,
            )
            for number in range(1, instances + 1)
        ]
        await asyncio.gather(*(process.start() for process in processes))
        try:
            yield processes[0]
        finally:
            ended = await asyncio.gather(*(process.stop() for process in processes))
        assert ended == [0] * instances, processes[0].log_tail()

    async def petition(self, petition_id: str, targets: int = 1, *, wrong: bool = False) -> None:
        """A petition to so many offices is published, with their addresses, or with wrong ones."""
        event = PetitionChanged(
            petition_id=petition_id,
            organisation=Organisation(slug="harbour-friends", name="Friends of the Harbour"),
            title="Keep the night ferry",
            text="It brings people home.",
            targets=[
                Target(
                    target_id=f"office-{n}",
                    name=f"Office {n}",
                    kind="body",
                    email=f"old-{office(petition_id, n)}" if wrong else office(petition_id, n),
                )
                for n in range(targets)
            ],
            changed_at=datetime.now(UTC),
        )
        headers = event_headers(PetitionChanged, event_id=uuid4(), source="/test", subject=petition_id)
        await self._publish(PETITIONS_CHANGED.name, petition_id, event.model_dump_json().encode(), headers)

    async def milestones(self, petition_id: str, *thresholds: int) -> None:
        """Milestones were reached, by one surge: they reach the topic together."""
        reached = [await self.decide(petition_id, threshold) for threshold in thresholds]
        await asyncio.gather(*(self.announce(milestone) for milestone in reached))

    async def announce(self, milestone: MilestoneReached) -> None:
        """A milestone is published."""
        name = milestone.petition_id
        event_id = milestone_id(name, milestone.threshold)
        headers = event_headers(MilestoneReached, event_id=event_id, source="/test", subject=name)
        await self._publish(MILESTONES_REACHED.name, name, milestone.model_dump_json().encode(), headers)

    async def decide(self, petition_id: str, threshold: int) -> MilestoneReached:
        """The milestone as tally has recorded it: once, before it is published."""
        now = datetime.now(UTC)
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute(
                "INSERT INTO milestones (petition_id, threshold, count, revision, reached_at) VALUES ($1, $2, $3, $3, $4)"
                " ON CONFLICT DO NOTHING",
                petition_id,
                threshold,
                threshold + 1,
                now,
            )
            row = await connection.fetchrow(
                "SELECT count, revision, reached_at FROM milestones WHERE petition_id = $1 AND threshold = $2",
                petition_id,
                threshold,
            )
        finally:
            await connection.close()
        assert row is not None
        return MilestoneReached(petition_id=petition_id, threshold=threshold, **dict(row))

    async def poison(self, petition_id: str) -> None:
        """Something that is no milestone lands on the topic."""
        headers = event_headers(MilestoneReached, event_id=uuid4(), source="/test", subject=petition_id)
        await self._publish(MILESTONES_REACHED.name, petition_id, b'{"threshold": "many"}', headers)

    async def _publish(self, topic: str, key: str, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        await self.producer.publish(topic, Record(key.encode(), value, headers))


def office(petition_id: str, number: int = 0) -> str:
    return f"office{number}@{petition_id}.example"


def fresh(name: str) -> str:
    """A petition id of this run's own: the broker keeps what earlier tests have published."""
    return f"{name}-{uuid4().hex[:6]}"


async def ask(notify: ServiceProcess, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=notify.url) as client:
        return await client.get(path)


def not_ready(notify: ServiceProcess, dependency: str) -> Callable[[], Awaitable[bool]]:
    """Whether /readyz names this dependency."""

    async def named() -> bool:
        answer = await ask(notify, "/readyz")
        return answer.status_code == 503 and answer.json()["checks"][dependency] != "ok"

    return named


async def ready(notify: ServiceProcess) -> bool:
    return (await ask(notify, "/readyz")).status_code == 200


@pytest.fixture
async def town(kafka: KafkaBroker, postgres: Postgres, tmp_path: Path) -> AsyncIterator[Town]:
    await apply_topics(kafka.bootstrap_servers)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    yield Town(kafka, await new_database(postgres), producer, tmp_path)
    await producer.stop()


async def test_each_target_gets_one_mail_about_the_milestones_of_a_surge(town: Town, mailbox: MailCatcher) -> None:
    ferry = fresh("ferry")
    await town.petition(ferry, targets=2)
    async with town.notify(mailbox.url) as notify:
        await town.milestones(ferry, 1000, 2500, 5000)

        async def both_came() -> bool:
            return len([mail for n in range(2) for mail in await mailbox.messages(to=office(ferry, n))]) == 2

        await eventually(both_came, "both offices have mail")
        await town.milestones(ferry, 1000, 2500, 5000)  # once more, as after a crash of tally
        await town.milestones(ferry, 10_000)

        async def counted() -> bool:
            metrics = (await ask(notify, "/metrics")).text
            return all(
                f'groundswell_notify_deliveries_total{{outcome="{outcome}"}} 4.0' in metrics
                for outcome in ("sent", "folded")
            )

        await eventually(counted, "the metrics count two mails to each of two offices, and two milestones named beside")
        assert await ready(notify)

    first, second = await mailbox.messages(to=office(ferry))
    assert len(await mailbox.messages(to=office(ferry, 1))) == 2
    assert first.headers["X-Groundswell-Milestones"] == "1000, 2500, 5000"
    assert second.headers["X-Groundswell-Milestones"] == "10000"
    assert "Office 0" in first.text
    assert f"https://pages.example/p/{ferry}" in first.text
    assert f'href="https://pages.example/p/{ferry}"' in first.html
    assert ".example" not in notify.log_tail(1000), "no address in the log"


async def test_what_is_away_is_named_and_what_waits_for_it_is_not_lost(town: Town, postgres: Postgres) -> None:
    ferry = fresh("ferry")
    await town.petition(ferry)
    async with ScriptedSmtp() as smtp, town.notify(smtp.url) as notify:
        await smtp.stop()
        await town.milestones(ferry, 1000)
        await eventually(not_ready(notify, "smtp"), "/readyz names smtp")
        later = await town.decide(ferry, 2500)
        await postgres.stop()
        await eventually(not_ready(notify, "postgres"), "/readyz names postgres")
        await town.announce(later)
        await eventually(not_ready(notify, "consumer"), "/readyz says that consumption is held")
        checks = (await ask(notify, "/readyz")).json()["checks"]
        assert checks["consumer"].startswith("waiting for postgres: batch held"), "smtp is not what it waits for"
        assert checks["kafka"] == "ok"
        await postgres.start()
        await smtp.start()
        await eventually(lambda: named(smtp) == {1000, 2500}, "both milestones were mailed")
        await eventually(lambda: ready(notify), "all is well again")


def named(smtp: ScriptedSmtp) -> set[int]:
    """The thresholds named by the mails that the server has."""
    return {int(threshold) for mail in smtp.taken for threshold in mail.milestones.split(",")}


async def test_killed_between_the_servers_yes_and_the_row_the_same_mail_goes_out_once_more(town: Town) -> None:
    ferry = fresh("ferry")
    await town.petition(ferry)
    async with ScriptedSmtp() as smtp, town.notify(smtp.url) as notify:

        async def kill() -> None:
            smtp.on_data = None
            await notify.kill()

        smtp.on_data = kill
        await town.milestones(ferry, 1000, 2500)
        await eventually(lambda: not notify.running, "notify was killed with the mail out and the row not written")
        await notify.start()
        await town.milestones(ferry, 5000)
        await eventually(lambda: len(smtp.taken) == 3, "the mail came again, and then the next")

    first, again, later = smtp.taken
    assert first == again
    assert (first.milestones, later.milestones) == ("1000, 2500", "5000")


async def test_a_milestone_that_is_ahead_of_its_petition_is_mailed_when_the_petition_is_known(town: Town) -> None:
    ferry, park = fresh("ferry"), fresh("park")
    await town.petition(park)
    async with ScriptedSmtp() as smtp, town.notify(smtp.url) as notify:
        await town.milestones(ferry, 1000)
        await town.milestones(park, 1000)
        await eventually(lambda: [mail.recipient for mail in smtp.taken] == [office(park)], "the other is not held up")

        async def shown() -> bool:
            return "groundswell_notify_milestones_waiting 1.0" in (await ask(notify, "/metrics")).text

        await eventually(shown, "the metric shows that one waits")
        await town.petition(ferry)
        await eventually(lambda: smtp.taken[-1].recipient == office(ferry), "the petition's target has its mail")


async def dead_letter(kafka: KafkaBroker, key: str) -> ConsumerRecord[bytes, bytes]:
    """The first dead letter with this key."""
    consumer = AIOKafkaConsumer(
        MILESTONES_REACHED.dlq, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    )
    async with consumer, asyncio.timeout(30):
        async for record in consumer:
            if record.key == key.encode():
                found: ConsumerRecord[bytes, bytes] = record
                return found
    raise AssertionError("the topic has an end")


async def test_what_is_no_milestone_goes_to_the_dead_letters_and_holds_nothing_up(
    town: Town, mailbox: MailCatcher
) -> None:
    ferry = fresh("ferry")
    await town.petition(ferry)
    async with town.notify(mailbox.url):
        await town.poison(ferry)
        await town.milestones(ferry, 1000)

        async def came() -> bool:
            return len(await mailbox.messages(to=office(ferry))) == 1

        await eventually(came, "the milestone behind it was mailed")

    letter = await dead_letter(town.kafka, ferry)
    assert letter.value == b'{"threshold": "many"}'
    assert dict(letter.headers)["dlq_reason"] == b"schema"


async def test_two_instances_mail_each_milestone_once(town: Town) -> None:
    petitions = [fresh("petition") for _ in range(8)]
    for petition_id in petitions:
        await town.petition(petition_id, targets=2)
    async with ScriptedSmtp() as smtp, town.notify(smtp.url, instances=2):
        for petition_id in petitions:
            await town.milestones(petition_id, 1000)
        await eventually(lambda: len(smtp.taken) >= 16, "all mails are out")
    assert len({mail.id for mail in smtp.taken}) == len(smtp.taken) == 16


async def test_a_correction_that_came_while_no_notify_ran_is_mailed_once_at_the_next_start(town: Town) -> None:
    ferry = fresh("ferry")
    await town.petition(ferry, targets=2, wrong=True)
    async with ScriptedSmtp() as smtp:
        for number in range(2):
            smtp.always(f"old-{office(ferry, number)}", "550 5.1.1 no such office")
        async with town.notify(smtp.url) as notify:
            for threshold, failed in ((1000, 2), (2500, 4)):
                await town.milestones(ferry, threshold)
                await eventually(counter(notify, 'deliveries_total{outcome="failed"}', failed), "mails failed")
        await town.petition(ferry, targets=2)
        async with town.notify(smtp.url, instances=2) as notify:
            await eventually(lambda: len(smtp.taken) == 6, "each office has one mail more")
            await town.milestones(ferry, 5000)
            await eventually(lambda: len(smtp.taken) == 8, "and one about what came later")
            assert ".example" not in notify.log_tail(1000), "no address in the log"
    mails = [(mail.recipient, mail.milestones) for mail in smtp.taken[4:]]
    assert sorted(mails) == sorted((office(ferry, n), named) for n in range(2) for named in ("1000, 2500", "5000"))


def counter(notify: ServiceProcess, series: str, value: int) -> Callable[[], Awaitable[bool]]:
    """Whether a metric of notify has this value."""

    async def has() -> bool:
        return f"groundswell_notify_{series} {value}.0\n" in (await ask(notify, "/metrics")).text

    return has
