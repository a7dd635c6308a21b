"""ingest with a wrong clock: it accepts nothing that verify would refuse, says why, and goes on when the clock is right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from deploy.local.parts.kafka import KafkaBroker
from shared.contract.identity import signer_key
from tests.faults.breaking.clock import faketime_environment, remove_leftovers, set_clock
from tests.support.running_ingest import (
    AS_ADMIN,
    AS_PARTNER,
    PEPPER,
    STATE,
    Ingest,
    code,
    ingest_process,
    running_ingest,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("needs_apache")

_NOBODY = "postgresql://nobody@127.0.0.1:1/nothing"
_TO_1970 = -round(datetime.now(UTC).timestamp()) + 3_600
_TO_2101 = round((datetime(2101, 6, 1, tzinfo=UTC) - datetime.now(UTC)).total_seconds())
_HOUR = 3_600


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The file that sets the clock of the ingest under test."""
    return tmp_path / "clock"


@pytest.fixture
async def ingest(brokers: KafkaBroker, postgres_url: str, clock: Path, tmp_path: Path) -> AsyncIterator[Ingest]:
    """An ingest whose clock is right, for now."""
    environment = faketime_environment(clock)
    async with running_ingest(brokers, postgres_url=postgres_url, log_dir=tmp_path, **environment) as running:
        yield running
    remove_leftovers()


async def open_for_now(ingest: Ingest) -> str:
    """A petition that opened half an hour ago and closes in half an hour: by another clock it is not open."""
    petition_id, now = f"petition-{uuid4().hex[:12]}", datetime.now(UTC)
    times = {"opens_at": now - timedelta(minutes=30), "closes_at": now + timedelta(minutes=30)}
    await ingest.start_petition(petition_id, **{name: time.isoformat() for name, time in times.items()})
    return petition_id


async def accepted_are_of_now(ingest: Ingest, petition_id: str, ids: set[str]) -> None:
    """Every accepted signature is on the topic, and every record there has a time that Kafka's clock confirms."""
    records = await ingest.published(petition_id)
    assert ids <= {json.loads(record.value)["signature_id"] for record in records}
    for record in records:
        submitted_at = datetime.fromisoformat(json.loads(record.value)["submitted_at"])
        assert abs(submitted_at.timestamp() - record.timestamp / 1000) < 61


async def says(ingest: Ingest) -> str:
    """The check of the clock in /readyz."""
    answer = await ingest.http.get("/readyz")
    said = str(answer.json()["checks"]["clock"])
    assert (answer.status_code == 200) is (said == "ok"), answer.text
    return said


def refused(answer: httpx.Response) -> bool:
    """Whether it is the answer of an ingest whose clock is wrong."""
    if answer.status_code != 503:
        return False
    assert (code(answer), answer.headers["retry-after"]) == ("clock_wrong", "5")
    return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(_TO_1970, "behind"), (_TO_2101, "ahead of"), (_HOUR, "ahead of"), (-_HOUR, "behind")],
    ids=["1970", "2101", "an hour ahead", "an hour behind"],
)
async def test_what_a_wrong_clock_would_stamp_is_not_accepted_and_nothing_is_when_it_is_wrong(
    ingest: Ingest, clock: Path, seconds: int, words: str
) -> None:
    petition = await open_for_now(ingest)
    accepted: set[str] = set()
    number = 0

    async def sign() -> httpx.Response:
        nonlocal number
        number += 1
        answer = await ingest.sign(petition, email=f"signer{number}@mail.example")
        assert answer.status_code in (202, 503), answer.text  # never "closed" or "not open yet"
        if answer.status_code == 202:
            accepted.add(answer.json()["signature_id"])
        return answer

    first = await sign()
    assert first.status_code == 202
    signature_id = first.json()["signature_id"]
    signer = signer_key(PEPPER.encode(), petition, "signer1@mail.example")
    await ingest.decide(signature_id, state="verified", petition_id=petition, signer=signer)

    set_clock(clock, seconds)

    async def refuses() -> bool:
        return refused(await sign())

    await eventually(refuses, "the jump is noticed", 10)
    assert words in await says(ingest)
    line = json.dumps({"email": "batch@mail.example", "name": "Robin", "country": "NL"})
    path = f"/v1/petitions/{petition}"
    for call in (
        ingest.sign(petition),
        ingest.http.post(
            f"{path}/signatures/batch",
            content=line,
            headers={**AS_PARTNER, "content-type": "application/x-ndjson"},
        ),
        ingest.http.post(f"/v1/signatures/{signature_id}/withdraw", headers=AS_PARTNER),
        ingest.http.put(path, params={"replace": "true"}, json=STATE, headers=AS_ADMIN),
    ):
        assert refused(await call)

    for source in ("kafka", "postgres"):
        sample = f'groundswell_ingest_clock_offset_seconds{{source="{source}"}}'

        async def measured(sample: str = sample) -> bool:
            return abs(await ingest.metric(sample) - seconds) < 30

        await eventually(measured, f"the difference from {source} is measured", 10)
    assert (await ingest.http.get(path)).status_code == 200, "who only reads is served"

    set_clock(clock, 0)

    async def accepts() -> bool:
        return (await sign()).status_code == 202

    await eventually(accepts, "it accepts again", 10)
    assert await says(ingest) == "ok"
    await accepted_are_of_now(ingest, petition, accepted)


@pytest.mark.parametrize("seconds", [_TO_1970, _TO_2101, _HOUR, -_HOUR], ids=["1970", "2101", "ahead", "behind"])
async def test_started_with_a_wrong_clock_and_without_postgres_it_learns_it_from_the_first_acknowledgement(
    ingest: Ingest, brokers: KafkaBroker, tmp_path: Path, seconds: int
) -> None:
    petition = f"petition-{uuid4().hex[:12]}"
    await ingest.start_petition(petition)
    own = tmp_path / "own-clock"
    environment = faketime_environment(own)
    set_clock(own, seconds)
    process = ingest_process(brokers, postgres_url=_NOBODY, log_dir=tmp_path / "own", **environment)
    await process.launch()
    try:
        async with httpx.AsyncClient(base_url=process.url, timeout=30) as http:
            wrong = Ingest(process, brokers, http, _NOBODY)
            key = {"Idempotency-Key": "one"}
            refused_for = await first_answer_about_the_clock(lambda: wrong.sign(petition, headers=key))
            assert refused_for == "clock_wrong"
            checks = (await http.get("/readyz")).json()["checks"]
            assert "Kafka's" in checks["clock"] or "in the year" in checks["clock"]
            assert checks["postgres"] != "ok"

            set_clock(own, 0)

            async def accepts() -> bool:
                return (await wrong.sign(petition, headers=key)).status_code == 202

            await eventually(accepts, "it accepts the same signature once its clock is right", 15)
            accepted = (await wrong.sign(petition, headers=key)).json()["signature_id"]
            ids = [json.loads(record.value)["signature_id"] for record in await wrong.published(petition)]
            assert set(ids) == {accepted}, "what was refused after its acknowledgement is the same signature"
    finally:
        await process.stop()
        remove_leftovers()


async def first_answer_about_the_clock(sign: Callable[[], Awaitable[httpx.Response]]) -> str:
    """The code of the first answer that is not "starting" or "kafka_away"; there must be no 202 before it."""
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await sign()
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            assert answer.status_code == 503, answer.text
            if code(answer) not in ("starting", "kafka_away"):
                return code(answer)
            await asyncio.sleep(0.1)


async def test_without_postgres_a_jump_is_noticed_against_what_kafka_said_before(
    brokers: KafkaBroker, clock: Path, tmp_path: Path
) -> None:
    environment = faketime_environment(clock)
    async with running_ingest(brokers, postgres_url=_NOBODY, log_dir=tmp_path, **environment) as ingest:
        petition_id = f"petition-{uuid4().hex[:12]}"
        await ingest.publish_petition(petition_id)
        assert (await ingest.sign(petition_id)).status_code == 202  # Kafka's acknowledgement has its time
        set_clock(clock, -_HOUR)

        async def noticed() -> bool:
            return await says(ingest) != "ok"

        await eventually(noticed, "the jump is noticed while nobody signs", 10)
        said = await says(ingest)
        assert "behind Kafka's" in said
        assert "PostgreSQL" not in said
    remove_leftovers()


async def test_a_clock_within_the_tolerance_is_right(ingest: Ingest, clock: Path) -> None:
    petition = await open_for_now(ingest)
    set_clock(clock, 45)

    async def seen() -> bool:
        return await ingest.metric('groundswell_ingest_clock_offset_seconds{source="postgres"}') > 40

    await eventually(seen, "the difference is measured", 10)
    assert (await ingest.sign(petition)).status_code == 202
    assert await says(ingest) == "ok"
