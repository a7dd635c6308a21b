"""Signatures that PostgreSQL refuses, and deleted rows, do not block other signatures."""

from typing import Any

from aiokafka import AIOKafkaProducer

from shared.contract.topics import SIGNATURES_REJECTED, SIGNATURES_SUBMITTED, SIGNATURES_VERIFIED
from tests.support.system import System
from tests.support.waiting import eventually


async def signed(system: System, petition_id: str, name: str, **fields: Any) -> str:
    """Sign once, as a browser does; the same name gives the same request. Returns the signature's id."""
    answer = await system.http.post(
        f"{system.ingest}/v1/petitions/{petition_id}/signatures",
        json={"email": f"{name}@mail.example", "name": "Ann Example", "country": "NL", **fields},
        headers={"idempotency-key": f"{petition_id}-{name}"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["signature_id"])


async def letters(system: System, signature_ids: set[str]) -> list[Any]:
    """The dead letters of these commands."""
    records = await system.records(SIGNATURES_SUBMITTED.dlq)
    return [record for record in records if dict(record.headers).get("ce_id", b"").decode() in signature_ids]


async def told(system: System, topic: str, signature_id: str) -> set[tuple[bytes, bytes]]:
    """The records of a topic about a signature; a repeated record counts once."""
    return {
        (record.key, record.value) for record in await system.records(topic) if signature_id.encode() in record.value
    }


async def test_a_request_repeated_after_its_signature_was_deleted_holds_up_nobody_and_changes_no_count(
    system: System,
) -> None:
    await system.start_petition("erased")
    ours = await signed(system, "erased", "ada")
    await system.counts_to("erased", 1)
    facts = await told(system, SIGNATURES_VERIFIED.name, ours)
    assert await system.database.execute("DELETE FROM signatures WHERE signature_id = $1", ours) == "DELETE 1"

    assert await signed(system, "erased", "ada") == ours
    await system.surge("erased", range(1_000))
    await system.counts_to("erased", 1_001)
    assert await system.states("erased") == {"verified": 1_000}, "what was deleted does not come back"

    verify = system.stack.services["verify"][0]
    await verify.kill()
    await verify.start()
    assert await signed(system, "erased", "ada") == ours
    await system.surge("erased", range(1_000, 1_100))
    await system.counts_to("erased", 1_101)
    await system.is_ready()
    assert await told(system, SIGNATURES_VERIFIED.name, ours) == facts, "the same fact, at the same position"
    assert await told(system, SIGNATURES_REJECTED.name, ours) == set()
    assert await letters(system, {ours}) == []
    result = await system.audited("erased")
    assert result.right, result


async def test_what_a_constraint_refuses_is_set_aside_while_the_others_count_and_counts_once_it_is_written_again(
    system: System,
) -> None:
    await system.start_petition("refused")
    await system.database.execute("ALTER TABLE signatures ADD CONSTRAINT no_mt CHECK (country <> 'MT') NOT VALID")
    try:
        await system.surge("refused", range(300))
        refused = {await signed(system, "refused", f"from-malta-{number}", country="MT") for number in range(3)}
        await system.surge("refused", range(300, 1_000))
        await system.counts_to("refused", 1_000)

        async def all_set_aside() -> bool:
            return len({dict(letter.headers)["ce_id"] for letter in await letters(system, refused)}) == len(refused)

        await eventually(all_set_aside, "the three are dead letters")
    finally:
        await system.database.execute("ALTER TABLE signatures DROP CONSTRAINT no_mt")

    found = await letters(system, refused)
    producer = AIOKafkaProducer(bootstrap_servers=system.stack.environment["KAFKA_BOOTSTRAP_SERVERS"])
    async with producer:
        for letter in found:
            ours = dict(letter.headers)
            assert ours["dlq_reason"] == b"cannot_be_applied"
            assert b"constraint no_mt, table signatures" in ours["dlq_exception"]
            assert b"MT" not in ours["dlq_exception"], "PostgreSQL's own text repeats the row"
            own = [(name, value) for name, value in letter.headers if not name.startswith("dlq_")]
            lane = int(ours["dlq_source_partition"])
            await producer.send_and_wait(
                SIGNATURES_SUBMITTED.name, letter.value, key=letter.key, headers=own, partition=lane
            )
    await system.is_proved("refused", 1_003)
