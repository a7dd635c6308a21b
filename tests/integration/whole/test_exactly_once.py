"""The promise: every accepted signature is counted once, whatever is killed, flushed or away meanwhile."""

import asyncio
import json
import signal
from collections import Counter

import pytest
from redis.asyncio import Redis

from deploy.local.parts.service import ServiceName, ServiceProcess
from shared.contract.events import MilestoneReached
from shared.contract.topics import MILESTONES_REACHED, SIGNATURES_REJECTED, SIGNATURES_VERIFIED
from tests.support.system import System
from tests.support.waiting import eventually

SIGNERS = 6_000


async def _in_the_middle(system: System, petition_id: str) -> None:
    """Wait until some of the surge was counted, but far from all."""

    async def some() -> bool:
        return await system.count(petition_id) > SIGNERS // 20

    await eventually(some, "the count has begun to move")


async def test_a_surge_with_repeats_is_counted_exactly_and_every_submission_has_its_outcome(system: System) -> None:
    await system.start_petition("plain-surge", milestones=[100, 1000, 2000])
    first = await system.surge("plain-surge", range(2_000))
    again = await system.surge("plain-surge", range(500), name="Ann E.")  # other signatures of the same signers
    retried = await system.surge("plain-surge", range(300))  # retries: the same Idempotency-Keys
    assert retried == first[:300]
    await system.decided("plain-surge", 2_500)
    await system.is_proved("plain-surge", 2_000)
    assert await system.states("plain-surge") == {"verified": 2_000, "duplicate": 500}
    outcome = (await system.http.get(f"{system.ingest}/v1/signatures/{again[0]}", headers=system.partner)).json()
    assert outcome["status"] == "duplicate"
    assert outcome["reason"] == "already_signed"


@pytest.mark.parametrize("service", ["verify", "tally"])
async def test_the_count_is_exact_when_a_service_is_killed_in_the_middle_of_batches(
    system: System, service: ServiceName
) -> None:
    petition = f"killed-{service}"
    await system.start_petition(petition, milestones=[1_000, 5_000])
    process = system.stack.services[service][0]
    await asyncio.gather(
        system.surge(petition, range(SIGNERS)),
        _kill_and_start(system, petition, process),
    )
    await system.is_proved(petition, SIGNERS)


async def _kill_and_start(system: System, petition_id: str, process: ServiceProcess) -> None:
    await _in_the_middle(system, petition_id)
    for _ in range(3):
        await process.kill()
        await process.start()
        await asyncio.sleep(0.3)  # let it take some batches before it is killed again


async def test_the_count_is_exact_when_instances_join_and_leave(system: System) -> None:
    await system.start_petition("rebalanced")

    async def join_and_leave() -> None:
        await _in_the_middle(system, "rebalanced")
        for _ in range(2):
            others = [
                ServiceProcess(
                    name, environment=system.stack.environment, log_dir=system.stack.service_processes[0].log_file.parent,
                    instance=9,
                )
                for name in ("verify", "tally")
            ]  # fmt: skip
            await asyncio.gather(*(other.start() for other in others))
            assert [await other.stop() for other in others] == [0, 0]

    await asyncio.gather(system.surge("rebalanced", range(SIGNERS)), join_and_leave())
    await system.is_proved("rebalanced", SIGNERS)


async def test_a_zombie_that_wakes_after_its_partitions_were_given_away_changes_nothing(system: System) -> None:
    await system.start_petition("zombie")
    zombie = system.stack.services["verify"][0]
    other = ServiceProcess("verify", environment=system.stack.environment, log_dir=zombie.log_file.parent, instance=8)

    async def sleep_through_a_session() -> None:
        await _in_the_middle(system, "zombie")
        zombie.pause()
        await other.start()  # gets all partitions once the zombie's session has timed out
        await system.decided("zombie", SIGNERS)
        zombie.resume()

    await asyncio.gather(system.surge("zombie", range(SIGNERS)), sleep_through_a_session())
    await system.is_ready()
    await system.surge("zombie", range(SIGNERS, SIGNERS + 500))
    await system.is_proved("zombie", SIGNERS + 500)
    assert await other.stop() == 0


async def test_flushing_redis_in_a_surge_heals_to_the_exact_count(system: System) -> None:
    await system.start_petition("flushed", milestones=[500, 3_000])
    await system.start_petition("flushed-idle")
    await system.surge("flushed-idle", range(100))
    await system.counts_to("flushed-idle", 100)

    async def flush_twice() -> None:
        await _in_the_middle(system, "flushed")
        redis = Redis.from_url(system.stack.environment["REDIS_URL"])
        await redis.flushall()
        await asyncio.sleep(0.5)
        await redis.flushall()
        await redis.aclose()

    await asyncio.gather(system.surge("flushed", range(SIGNERS)), flush_twice())
    await system.is_proved("flushed", SIGNERS)
    await system.is_proved("flushed-idle", 100)  # without further signatures only the identity of Redis shows it


async def test_restarting_redis_in_a_surge_heals_to_the_exact_count(system: System) -> None:
    await system.start_petition("redis-restarted")
    assert system.stack.valkey is not None
    valkey = system.stack.valkey

    async def restart() -> None:
        await _in_the_middle(system, "redis-restarted")
        await valkey.kill()
        await valkey.start()

    await asyncio.gather(system.surge("redis-restarted", range(SIGNERS)), restart())
    await system.is_proved("redis-restarted", SIGNERS)


async def test_postgres_away_for_ten_seconds_loses_nothing(system: System) -> None:
    await system.start_petition("postgres-away")
    assert system.stack.postgres is not None
    postgres, verify = system.stack.postgres, system.stack.services["verify"][0]

    async def go_away() -> None:
        await _in_the_middle(system, "postgres-away")
        await postgres.stop()

        async def says_so() -> bool:
            answer = await system.http.get(f"{verify.url}/readyz")
            return answer.status_code == 503 and answer.json()["checks"]["postgres"] != "ok"

        await eventually(says_so, "verify names postgres as away")
        await asyncio.sleep(10)  # the outage itself
        await postgres.start()

    await asyncio.gather(system.surge("postgres-away", range(SIGNERS)), go_away())
    await system.is_ready()
    await system.is_proved("postgres-away", SIGNERS)


async def test_kafka_killed_and_restarted_loses_no_accepted_signature(system: System) -> None:
    kafka = system.stack.kafka
    assert kafka is not None
    if kafka.kind != "apache":
        pytest.skip("the embedded broker keeps nothing over a restart")
    await system.start_petition("kafka-restarted")
    accepted: list[list[str]] = []

    async def surge() -> None:
        accepted.append(await system.surge("kafka-restarted", range(SIGNERS)))

    async def restart() -> None:
        await _in_the_middle(system, "kafka-restarted")
        await kafka.kill()
        await kafka.start()

    await asyncio.gather(surge(), restart())
    await system.is_ready()
    assert len(set(accepted[0])) == SIGNERS
    await system.is_proved("kafka-restarted", SIGNERS)


async def test_stopping_services_drains_and_ends_with_exit_code_0(system: System) -> None:
    await system.start_petition("stopped")
    verify, tally = system.stack.services["verify"][0], system.stack.services["tally"][0]

    async def stop_both() -> None:
        await _in_the_middle(system, "stopped")
        assert await verify.stop() == 0
        assert await tally.stop() == 0
        await asyncio.gather(verify.start(), tally.start())

    await asyncio.gather(system.surge("stopped", range(SIGNERS)), stop_both())
    await system.is_proved("stopped", SIGNERS)


async def test_withdrawn_and_invalidated_signatures_are_taken_back_once(system: System) -> None:
    await system.start_petition("taken-back")
    ids = await system.surge("taken-back", range(10))
    await system.counts_to("taken-back", 10)
    for signature, change in ((ids[0], "withdraw"), (ids[1], "invalidate"), (ids[1], "invalidate")):
        answer = await system.http.post(f"{system.ingest}/v1/signatures/{signature}/{change}", headers=system.admin)
        assert answer.status_code == 202, answer.text
    await system.counts_to("taken-back", 8)
    (back,) = await system.surge("taken-back", range(1), name="Once More")
    (struck,) = await system.surge("taken-back", range(1, 2), name="Once More")
    await system.decided("taken-back", 12)
    await system.is_proved("taken-back", 9)  # who withdrew may sign again, who was struck out may not
    states = await system.states("taken-back")
    assert states == {"verified": 9, "withdrawn": 1, "invalidated": 1, "duplicate": 1}
    assert [fact["delta"] for fact in await _facts(system, "taken-back")].count(-1) == 2
    for signature, status in ((back, "verified"), (struck, "duplicate")):
        answer = await system.http.get(f"{system.ingest}/v1/signatures/{signature}", headers=system.partner)
        assert answer.json()["status"] == status


async def _facts(system: System, petition_id: str) -> list[dict]:
    """The facts of a petition on the topic, each position once, as a subscriber would keep them."""
    found = {}
    for record in await system.records(SIGNATURES_VERIFIED.name):
        if record.key == petition_id.encode():
            fact = json.loads(record.value)
            found[fact["lane"], fact["position"]] = fact
    return list(found.values())


async def test_signatures_wait_for_confirmation_where_the_petition_asks_for_it(system: System) -> None:
    await system.start_petition("confirmed", policy={"confirmation": "required"})
    ids = await system.surge("confirmed", range(3))
    await system.decided("confirmed", 3)
    assert await system.states("confirmed") == {"pending": 3}
    answer = await system.http.post(f"{system.ingest}/v1/signatures/{ids[1]}/confirm", headers=system.partner)
    assert answer.status_code == 202, answer.text
    await system.is_proved("confirmed", 1)


async def test_signatures_that_break_rules_made_after_they_were_accepted_are_rejected_with_the_reason(
    system: System,
) -> None:
    """A violation of an existing rule is refused at the form; but rules may change between the form and verify."""
    verify = system.stack.services["verify"][0]
    await system.start_petition("rules")
    assert await verify.stop() == 0
    (blocked,) = await system.surge("rules", range(1, 2))
    await system.start_petition("rules", policy={"blocked_email_domains": ["mail.example"]})
    await verify.start()
    await system.decided("rules", 1)
    assert await verify.stop() == 0
    await system.start_petition("rules", policy={"blocked_email_domains": []})
    (elsewhere,) = await system.surge("rules", range(2, 3))
    await system.start_petition("rules", policy={"countries": ["BE"]})
    await verify.start()
    await system.decided("rules", 2)
    for signature, reason in ((blocked, "email_domain_blocked"), (elsewhere, "country_not_eligible")):
        outcome = (await system.http.get(f"{system.ingest}/v1/signatures/{signature}")).json()
        assert (outcome["status"], outcome["reason"]) == ("rejected", reason)

    async def told() -> Counter[str]:
        return Counter(
            json.loads(record.value)["reason"]
            for record in await system.records(SIGNATURES_REJECTED.name)
            if record.key == b"rules"
        )

    async def both_told() -> bool:
        return set(await told()) == {"email_domain_blocked", "country_not_eligible"}

    await eventually(both_told, "subscribers are told both reasons")


async def test_what_is_at_the_bounds_goes_all_the_way(system: System) -> None:
    """A petition of the longest texts and the furthest times, signed by forms of the longest texts, is shown and mailed."""
    targets = [{"target_id": "council", "name": "李" * 200, "kind": "body", "email": "\u00a0post＠bounds.test\u200b"}]
    await system.start_petition(
        "bounds",
        title=" " + "e\u0301" * 300,
        text="🚆" * 50_000,
        targets=targets,
        milestones=[1, 10_000_000_000],
        opens_at="0001-01-01T00:00:00Z",
        closes_at="9999-12-31T23:59:59Z",
        policy={"countries": ["nl"], "blocked_email_domains": ["@throwaway.test"]},
    )
    address = f"{system.ingest}/v1/petitions/bounds/signatures"
    longest = {
        "email": "Ｒobin＠bounds.test",
        "name": "李" * 200,
        "country": "nl",
        "postcode": "１" * 20,
        "comment": "这" * 1_900 + "\r\n" * 100,
    }
    answer = await system.http.post(address, data=longest, headers=system.partner)
    assert answer.status_code == 202, answer.text
    await system.is_proved("bounds", 1)
    for page in ("/p/bounds", "/o/harbour-friends", "/v1/petitions/bounds/tally", "/v1/organisations/harbour-friends"):
        assert (await system.http.get(f"{system.tally}{page}")).status_code == 200, page

    async def addressed() -> bool:
        rows = await system.database.fetch("SELECT email FROM deliveries WHERE petition_id = 'bounds'")
        return [row["email"] for row in rows] == ["post@bounds.test"]

    await eventually(addressed, "the milestone's delivery goes to the address as mails can be sent to it")
    petition = {
        "organisation": {"slug": "harbour-friends", "name": "Friends of the Harbour"},
        "title": "Beyond the bounds",
        "text": "Keep the ferry.",
        "targets": [{"target_id": "council", "name": "The Council", "kind": "body", "email": "c@council.test"}],
        "closes_at": "9999-12-31T23:59:59-05:00",
    }
    refused = await system.http.put(f"{system.ingest}/v1/petitions/beyond", json=petition, headers=system.admin)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["code"] == "time_out_of_range"


async def test_each_milestone_is_announced_once_also_when_the_count_falls_and_rises_again(system: System) -> None:
    await system.start_petition("milestones", milestones=[5, 10])
    ids = await system.surge("milestones", range(5))
    await system.counts_to("milestones", 5)
    await system.http.post(f"{system.ingest}/v1/signatures/{ids[0]}/withdraw", headers=system.admin)
    await system.counts_to("milestones", 4)
    await system.surge("milestones", range(5, 11))
    await system.counts_to("milestones", 10)
    redis = Redis.from_url(system.stack.environment["REDIS_URL"])
    await redis.flushall()
    await redis.aclose()
    await system.stack.services["tally"][0].restart()
    await system.surge("milestones", range(11, 12))
    await system.is_proved("milestones", 11)

    async def announced() -> list[int]:
        records = await system.records(MILESTONES_REACHED.name)
        return sorted(
            MilestoneReached.model_validate_json(record.value).threshold
            for record in records
            if record.key == b"milestones"
        )

    async def both() -> bool:
        return len(await announced()) >= 2

    await eventually(both, "both milestones are announced")
    assert await announced() == [5, 10]


async def test_a_milestone_added_below_the_count_is_reached_at_once(system: System) -> None:
    await system.start_petition("late-milestone", milestones=[])
    await system.surge("late-milestone", range(7))
    await system.counts_to("late-milestone", 7)
    await system.start_petition("late-milestone", milestones=[6])

    async def announced() -> bool:
        return any(record.key == b"late-milestone" for record in await system.records(MILESTONES_REACHED.name))

    await eventually(announced, "the new milestone is announced without another signature")


async def test_sigterm_in_a_held_batch_ends_the_service_promptly(system: System) -> None:
    await system.start_petition("held")
    assert system.stack.postgres is not None
    verify, postgres = system.stack.services["verify"][0], system.stack.postgres
    await postgres.stop()
    await system.surge("held", range(100))
    verify.send_signal(signal.SIGTERM)
    assert await verify.wait(timeout_seconds=60) == 0
    await postgres.start()
    await verify.start()
    await system.is_ready()
    await system.is_proved("held", 100)
