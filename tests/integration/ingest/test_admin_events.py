"""A change of a petition and its record: one dies with the process, is overtaken, or cannot be written. On real parts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.ports import LOOPBACK
from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from shared.contract.identity import signer_key
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.apply_topics import apply_topics
from tests.faults.breaking.failpoints import Failpoints
from tests.faults.breaking.proxy import Proxy
from tests.support.running_ingest import AS_ADMIN, PEPPER, STATE, Ingest, code, running_ingest
from tests.support.waiting import eventually

PETITION = "night-trains"
ADDRESS = f"/v1/petitions/{PETITION}"
MERGE = {**AS_ADMIN, "content-type": "application/merge-patch+json"}


@dataclass
class World:
    """Two instances of ingest on their own parts; the points are armed in the first one."""

    one: Ingest
    two: Ingest
    points: Failpoints
    proxy: Proxy
    """Between them and PostgreSQL."""
    postgres_url: str

    async def outcomes(self) -> list[tuple[str, str]]:
        """Call and outcome of all that was written down, in order."""
        return [(row["call"], row["outcome"]) for row in await self.rows()]

    async def rows(self) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.postgres_url)
        try:
            return list(await connection.fetch("SELECT * FROM admin_events ORDER BY at, version"))
        finally:
            await connection.close()

    async def titles(self) -> list[str]:
        """What each instance that runs shows."""
        running = [one for one in (self.one, self.two) if one.process.running]
        return [(await one.http.get(ADDRESS, headers=AS_ADMIN)).json()["title"] for one in running]

    async def on_topic(self) -> list[str]:
        """The titles of the petition's records, in their order."""
        consumer = AIOKafkaConsumer(
            PETITIONS_CHANGED.name, bootstrap_servers=self.one.kafka.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            found = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [json.loads(record.value)["title"] for record in records]
            return found
        finally:
            await consumer.stop()


async def patched(ingest: Ingest, **change: Any) -> httpx.Response:
    return await ingest.http.patch(ADDRESS, content=json.dumps(change), headers=MERGE)


@pytest.fixture
async def world(postgres: Postgres, tmp_path: Path) -> AsyncIterator[World]:
    """The petition exists, as "Bring back the night trains"."""
    url = await postgres.create_database(f"admin_events_{os.urandom(4).hex()}")
    await migrate(url)
    points = Failpoints(tmp_path / "points")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    proxy = Proxy("postgres", LOOPBACK, postgres.port)
    await proxy.start()
    through = url.replace(f":{postgres.port}/", f":{proxy.port}/")
    async with EmbeddedKafka(log_dir=tmp_path) as kafka:
        await apply_topics(kafka.bootstrap_servers)
        async with (
            running_ingest(kafka, postgres_url=through, log_dir=tmp_path / "one", **points.environment) as one,
            running_ingest(kafka, postgres_url=through, log_dir=tmp_path / "two") as two,
        ):
            await one.start_petition(PETITION)
            yield World(one, two, points, proxy, url)
    await proxy.stop()


async def test_killed_between_the_row_and_kafka_nothing_has_changed_and_the_next_change_goes_ahead(
    world: World,
) -> None:
    world.points.arm("ingest.change_asked", "kill")
    with pytest.raises(httpx.TransportError):
        await patched(world.one, title="Died with the process")
    assert await world.outcomes() == [("put", "done"), ("patch", "asked")]
    assert await world.titles() == [STATE["title"]]
    seen = (await world.two.http.get(ADDRESS, headers=AS_ADMIN)).headers["etag"]
    answer = await world.two.http.patch(
        ADDRESS, content=json.dumps({"text": "The next one."}), headers={**MERGE, "If-Match": seen}
    )
    assert (answer.status_code, answer.json()["title"]) == (200, STATE["title"])
    assert await world.outcomes() == [("put", "done"), ("patch", "overtaken"), ("patch", "done")]
    assert await world.on_topic() == [STATE["title"]] * 2


async def test_killed_after_kafka_the_change_holds_and_its_record_says_so_with_the_next_one(world: World) -> None:
    world.points.arm("ingest.change_stored", "kill")
    with pytest.raises(httpx.TransportError):
        await patched(world.one, title="Stored")
    assert await world.outcomes() == [("put", "done"), ("patch", "asked")]
    await eventually(lambda: _all_show(world, "Stored"), "the change is known")
    answer = await patched(world.two, text="The next one.")
    assert (answer.status_code, answer.json()["title"], answer.json()["text"]) == (200, "Stored", "The next one.")
    assert await world.outcomes() == [("put", "done"), ("patch", "done"), ("patch", "done")]


async def test_killed_after_kafka_the_record_is_finished_also_if_nobody_changes_anything_again(world: World) -> None:
    world.points.arm("ingest.change_stored", "kill")
    with pytest.raises(httpx.TransportError):
        await patched(world.one, title="Stored")
    connection = await asyncpg.connect(world.postgres_url)
    await connection.execute("UPDATE admin_events SET at = at - interval '1 minute' WHERE outcome = 'asked'")
    await connection.close()

    async def done() -> bool:
        return [outcome for _, outcome in await world.outcomes()] == ["done", "done"]

    await eventually(done, "the other instance has found the record", within=60)


async def test_a_process_that_wakes_after_it_was_overtaken_changes_nothing(world: World) -> None:
    world.points.arm("ingest.change_asked", "stop")
    late = asyncio.create_task(patched(world.one, title="Of the one that slept"))
    assert await world.points.hit("ingest.change_asked", within=30) is not None
    answer = await patched(world.two, title="Of the one that was awake")
    assert answer.status_code == 200
    world.one.process.resume()
    overtaken = await late
    assert (overtaken.status_code, code(overtaken)) == (409, "change_overtaken")
    # Its record has come, behind the other one: readers pass it over, and the newest state is written once more, so that
    # compaction keeps that one.
    await eventually(lambda: _topic_ends_with(world, "Of the one that was awake"), "it is written again", within=60)
    assert (await world.on_topic()).index("Of the one that slept") == 2
    assert await world.titles() == ["Of the one that was awake"] * 2
    assert await world.outcomes() == [("put", "done"), ("patch", "overtaken"), ("patch", "done")]
    # Also for readers that begin at the start of the topic.
    await world.one.process.restart()
    assert await world.titles() == ["Of the one that was awake"] * 2


async def test_a_command_about_a_signature_has_its_row_before_kafka_has_it(world: World) -> None:
    signature = (await world.one.sign(PETITION)).json()["signature_id"]
    signer = signer_key(PEPPER.encode(), PETITION, "robin@mail.example")
    await world.one.decide(signature, state="pending", petition_id=PETITION, signer=signer)
    world.points.arm("ingest.before_publish", "kill")
    with pytest.raises(httpx.TransportError):
        await world.one.http.post(f"/v1/signatures/{signature}/confirm", headers=AS_ADMIN)
    assert await world.outcomes() == [("put", "done"), ("confirm", "asked")]
    assert len(await world.two.published(PETITION)) == 1
    repeated = await world.two.http.post(f"/v1/signatures/{signature}/confirm", headers=AS_ADMIN)
    assert repeated.status_code == 202
    assert await world.outcomes() == [("put", "done"), ("confirm", "asked"), ("confirm", "done")]
    assert len(await world.two.published(PETITION)) == 2


async def test_a_petition_that_others_wrote_to_the_topic_is_changed_as_it_stands_there(world: World) -> None:
    """Records of before, or of another producer, have no version and no row."""
    from aiokafka import AIOKafkaProducer

    from shared.contract.events import PetitionChanged
    from shared.kafka.records.headers import event_headers

    state = {**STATE, "title": "By somebody else", "petition_id": PETITION, "changed_at": "2026-11-22T12:00:00Z"}
    producer = AIOKafkaProducer(bootstrap_servers=world.one.kafka.bootstrap_servers)
    await producer.start()
    headers = event_headers(PetitionChanged, event_id="1", source="/elsewhere", subject=PETITION)
    await producer.send_and_wait(
        PETITIONS_CHANGED.name, json.dumps(state).encode(), key=PETITION.encode(), headers=list(headers)
    )
    await producer.stop()
    answer = await patched(world.two, text="On top of it.")
    assert (answer.status_code, answer.json()["title"]) == (200, "By somebody else")
    assert await world.titles() == ["By somebody else"] * 2


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_without_postgres_nothing_is_administered_and_signing_goes_on(world: World, how: str) -> None:
    seen = (await world.one.http.get(ADDRESS, headers=AS_ADMIN)).headers["etag"]
    with world.proxy.refusing() if how == "refused" else world.proxy.stalled():
        for answer in (
            await world.one.http.put(ADDRESS, json={**STATE, "title": "Unrecorded"}, headers=AS_ADMIN),
            await patched(world.two, title="Unrecorded"),
        ):
            assert (answer.status_code, code(answer)) == (503, "record_away")
            assert int(answer.headers["retry-after"]) > 0
        assert (await world.one.sign(PETITION)).status_code == 202
        assert (await world.one.http.get(ADDRESS, headers=AS_ADMIN)).headers["etag"] == seen
        assert (await world.one.http.get("/readyz")).status_code == 200
    assert await world.on_topic() == [STATE["title"]]

    async def recorded() -> bool:
        return (await patched(world.one, title="Recorded")).status_code == 200

    await eventually(recorded, "PostgreSQL is back", within=60)


async def test_without_postgres_after_kafka_has_the_change_it_is_said_that_nobody_knows(world: World) -> None:
    world.points.arm("ingest.change_stored", "sleep 3")
    change = asyncio.create_task(patched(world.one, title="Stored"))
    assert await world.points.hit("ingest.change_stored", within=30) is not None
    with world.proxy.refusing():
        answer = await change
        assert (answer.status_code, code(answer)) == (503, "change_unconfirmed")
        await eventually(lambda: _all_show(world, "Stored"), "it holds all the same")
    assert await world.outcomes() == [("put", "done"), ("patch", "asked")]

    async def goes_on() -> bool:
        return (await patched(world.two, text="The next one.")).status_code == 200

    await eventually(goes_on, "PostgreSQL is back", within=60)
    assert await world.outcomes() == [("put", "done"), ("patch", "done"), ("patch", "done")]


async def test_without_the_table_nothing_is_administered_and_signing_goes_on(world: World) -> None:
    connection = await asyncpg.connect(world.postgres_url)
    await connection.execute("ALTER TABLE admin_events RENAME TO not_migrated_yet")
    try:
        refused = await patched(world.one, title="Unrecorded")
        assert (refused.status_code, code(refused)) == (503, "record_away")
        assert (await world.one.sign(PETITION)).status_code == 202
        assert "admin_events_missing" in world.one.process.log_file.read_text()
    finally:
        await connection.execute("ALTER TABLE not_migrated_yet RENAME TO admin_events")
        await connection.close()
    assert (await patched(world.one, title="Recorded")).status_code == 200
    assert world.one.process.running


async def test_the_command_lists_who_changed_what(world: World, tmp_path: Path) -> None:
    await patched(world.one, policy={"require_consent": True})
    await world.one.start_petition("another")

    async def listed(*arguments: str, url: str = world.postgres_url) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", "admin-events", *arguments),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "POSTGRES_URL": url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, (out + err).decode()

    status, out = await listed("--json", "--petition", PETITION)
    events = json.loads(out)["events"]
    assert (status, [(one["actor"], one["call"], one["outcome"]) for one in events]) == (
        0,
        [("admin", "put", "done"), ("admin", "patch", "done")],
    )
    assert events[1]["changed"] == ["policy.require_consent"]
    status, out = await listed()
    assert status == 0
    assert all(word in out for word in (PETITION, "another", "policy.require_consent", "done"))
    status, out = await listed(url="postgresql://nobody@127.0.0.1:1/nothing")
    assert (status, "PostgreSQL is away" in out) == (1, True)


async def _all_show(world: World, title: str) -> bool:
    return set(await world.titles()) == {title}


async def _topic_ends_with(world: World, title: str) -> bool:
    return (await world.on_topic())[-1] == title
