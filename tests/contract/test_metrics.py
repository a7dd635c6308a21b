"""/metrics of every service: valid by promtool's rules, and correct."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.parts.service import SERVICES, ServiceName
from shared.contract.events import SignCommand
from shared.contract.topics import DEFAULT_PARTITIONS, GROUPS, SIGNATURES_SUBMITTED, VERIFY_GROUP
from shared.kafka.records.headers import event_headers
from tests.needs import UNPACKED
from tests.support.signing import sign, signer_key_of
from tests.support.system import System
from tests.support.waiting import eventually

MOVED: dict[ServiceName, dict[str, float | None]] = {
    "ingest": {
        'groundswell_ingest_accepted_total{call="petition"}': 1,
        'groundswell_ingest_accepted_total{call="sign"}': 1,
        'groundswell_ingest_accepted_total{call="batch"}': 1,
        'groundswell_ingest_refused_total{reason="petition_unknown"}': 1,
        'groundswell_ingest_refused_total{reason="invalid_fields"}': 2,
        'groundswell_ingest_form_errors_total{code="country_not_eligible",field="country"}': 1,
        'groundswell_ingest_form_errors_total{code="not_an_address",field="email"}': 1,
        "groundswell_ingest_acknowledged_seconds_count": 1,
        "groundswell_ingest_batch_lines_sum": 1,
    },
    "verify": {
        'groundswell_verify_signatures_total{outcome="verified",reason=""}': 1,
        'groundswell_verify_signatures_total{outcome="duplicate",reason="already_signed"}': 1,
        'groundswell_verify_signatures_total{outcome="rejected",reason="country_not_eligible"}': 1,
        'groundswell_consumer_dead_letters_total{reason="not_a_cloud_event"}': 1,
        "groundswell_consumer_records_total": 3,
        "groundswell_consumer_batch_records_sum": None,
        "groundswell_consumer_batch_seconds_count": None,
        "groundswell_verify_store_seconds_count": None,
        "groundswell_verify_event_age_seconds_count": None,
    },
    "tally": {
        "groundswell_tally_changes_counted_total": 1,
        "groundswell_tally_milestones_announced_total": 1,
        "groundswell_consumer_batch_records_sum": None,
        "groundswell_consumer_batch_seconds_count": None,
        "groundswell_tally_event_age_seconds_count": None,
        "groundswell_tally_snapshots_published_total": None,
    },
    "notify": {
        # A mail of an earlier test's milestone may come in between.
        'groundswell_notify_deliveries_total{outcome="sent"}': None,
        'groundswell_notify_smtp_replies_total{class="2xx"}': None,
        "groundswell_notify_age_seconds_count": None,
        "groundswell_consumer_batch_records_sum": None,
    },
}
"""By how much each metric must have risen after `every_outcome`; None: by anything above 0."""

TOPICS_READ: dict[ServiceName, set[str]] = {
    "ingest": {"petitions.changed.v1"},
    "verify": {"petitions.changed.v1", "signatures.submitted.v1"},
    "tally": {"petitions.changed.v1", "signatures.verified.v1", "tallies.updated.v1"},
    "notify": {"petitions.changed.v1", "milestones.reached.v1"},
}


async def exposition(system: System, service: ServiceName) -> str:
    answer = await system.http.get(f"{system.stack.services[service][0].url}/metrics")
    assert answer.status_code == 200
    return answer.text


async def samples(system: System, service: ServiceName) -> dict[str, float]:
    """Every sample by its name and sorted labels, as ``name{a="b",c="d"}``."""
    found = {}
    for family in text_string_to_metric_families(await exposition(system, service)):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def a_counted_petition(system: System, petition: str) -> None:
    """A petition with one signature. Once that is counted, whatever earlier tests did to Redis is healed."""
    await system.start_petition(petition, milestones=[2], policy={"countries": ["NL", "BE"]})
    await system.surge(petition, range(1))
    await system.counts_to(petition, 1)


async def every_outcome(system: System, petition: str) -> None:
    """One signature that counts and reaches a milestone, one duplicate, rejected, refused, unknown, and a poison record."""
    await system.start_petition(petition, milestones=[2], policy={"countries": ["NL", "BE"]}, text="Keep both ferries.")
    url = f"{system.ingest}/v1/petitions/{petition}/signatures"
    ann = {"email": "ann@mail.example", "name": "Ann Example", "country": "NL"}
    for url_, body, status in (
        (url, ann, 202),
        (url, {**ann, "country": "FR"}, 422),
        (url, {**ann, "email": "ben"}, 422),
        (f"{system.ingest}/v1/petitions/no-such-petition/signatures", ann, 404),
    ):
        assert (await system.http.post(url_, json=body)).status_code == status
    # Accepted by an ingest that had not read of the countries yet; and what is no event at all.
    late = sign(uuid4().int, petition_id=petition, at=datetime.now(UTC), country="FR")
    key = signer_key_of(late, system.stack.environment["SIGNER_PEPPER"].encode())
    headers = event_headers(SignCommand, event_id=late.signature_id, source="/elsewhere", subject=petition)
    producer = AIOKafkaProducer(bootstrap_servers=system.stack.environment["KAFKA_BOOTSTRAP_SERVERS"])
    async with producer:
        await producer.send_and_wait(
            SIGNATURES_SUBMITTED.name, late.model_dump_json().encode(), key=key.hex.encode(), headers=headers
        )
        await producer.send_and_wait(SIGNATURES_SUBMITTED.name, b"poison")
    await system.decided(petition, 3)
    line = '{"email": "ANN@mail.example", "name": "Ann Example", "country": "NL"}'
    batch = await system.http.post(
        f"{url}/batch", content=line, headers={**system.partner, "content-type": "application/x-ndjson"}
    )
    assert batch.status_code == 207, batch.text


async def test_the_metrics_move_with_what_happens_to_signatures(system: System) -> None:
    await a_counted_petition(system, "measured")
    before = {service: await samples(system, service) for service in SERVICES}
    await every_outcome(system, "measured")
    wrong: list[str] = []

    async def moved() -> bool:
        nonlocal wrong
        now = {service: await samples(system, service) for service in SERVICES}
        risen = {
            (service, name): now[service].get(name, 0) - before[service].get(name, 0)
            for service, expected in MOVED.items()
            for name in expected
        }
        wrong = [
            f"{service}: {name} rose by {rise:g}, expected {MOVED[service][name] or 'more'}"
            for (service, name), rise in risen.items()
            if (rise <= 0 if MOVED[service][name] is None else rise != MOVED[service][name])
        ]
        return not wrong

    try:
        await eventually(moved, "every metric has moved")
    except AssertionError:
        pytest.fail("\n".join(wrong))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_is_well_says_so_check_by_check(service: ServiceName, system: System) -> None:
    async def well() -> bool:
        now = await samples(system, service)
        checks = [value for name, value in now.items() if name.startswith("groundswell_readiness_failing{")]
        return len(checks) >= 3 and not any(checks)

    await eventually(well, f"none of {service}'s readiness checks is failing")


@pytest.mark.parametrize("service", ["verify", "tally", "notify"])
async def test_the_lag_of_every_partition_is_shown_and_falls_to_0(service: ServiceName, system: System) -> None:
    async def caught_up() -> bool:
        now = await samples(system, service)
        lags = [value for name, value in now.items() if name.startswith("groundswell_consumer_lag_records{")]
        return lags == [0] * DEFAULT_PARTITIONS

    await eventually(caught_up, f"{service} shows no lag in any partition")


async def group_lags(system: System, asked_by: ServiceName) -> dict[str, float]:
    """The lag of each group, as a service read it from the brokers."""
    now = await samples(system, asked_by)
    lags = {
        group.name: now.get(f'groundswell_group_lag_records{{group="{group.name}",topic="{group.topic.name}"}}')
        for group in GROUPS
    }
    return {group: lag for group, lag in lags.items() if lag is not None}


@pytest.mark.parametrize("asked_by", ["ingest", "tally"])
async def test_the_lag_of_verify_is_known_while_verify_is_down(asked_by: ServiceName, system: System) -> None:
    petition = f"lag-asked-by-{asked_by}"
    await a_counted_petition(system, petition)
    (verify,) = system.stack.services["verify"]
    await verify.kill()
    try:
        await system.surge(petition, range(1, 101))

        async def behind() -> bool:
            return (await group_lags(system, asked_by)).get(VERIFY_GROUP.name, 0) > 0

        await eventually(behind, f"{asked_by} shows what waits for verify")
    finally:
        await verify.start()
    await system.counts_to(petition, 101)

    async def caught_up() -> bool:
        return await group_lags(system, asked_by) == {group.name: 0 for group in GROUPS}

    await eventually(caught_up, f"{asked_by} shows that no group has anything left to do")


async def test_the_drift_is_measured_and_is_0(system: System) -> None:
    async def measured() -> bool:
        now = await samples(system, "tally")
        return now.get('groundswell_tally_audits_total{result="right"}', 0) > 0 and now["groundswell_tally_drift"] == 0

    await eventually(measured, "an audit has found no drift")


@pytest.mark.parametrize("service", SERVICES)
async def test_faststream_reports_what_it_receives_of_every_topic(service: ServiceName, system: System) -> None:
    await a_counted_petition(system, f"received-by-{service}")
    await every_outcome(system, f"received-by-{service}")
    labels = f'app_name="{service}",broker="kafka",handler='

    async def received() -> bool:
        now = await samples(system, service)
        return all(
            now.get(f'faststream_received_messages_total{{{labels}"{topic}"}}', 0) > 0
            and now[f'faststream_received_messages_size_bytes_sum{{{labels}"{topic}"}}'] > 0
            for topic in TOPICS_READ[service]
        )

    await eventually(received, f"{TOPICS_READ[service]} are in {service}'s metrics")


@pytest.mark.parametrize("service", SERVICES)
async def test_promtool_finds_nothing_to_complain_about(service: ServiceName, system: System) -> None:
    promtool = shutil.which("promtool") or shutil.which("promtool", path=UNPACKED)
    if promtool is None:
        pytest.fail("promtool is missing: make test fetches it where it may (Debian: prometheus)")
    process = await asyncio.create_subprocess_exec(
        promtool,
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    complaints, _ = await process.communicate((await exposition(system, service)).encode())
    assert (process.returncode, complaints.decode()) == (0, "")
