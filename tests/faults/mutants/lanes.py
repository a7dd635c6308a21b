"""Operations on single lanes of ``signatures.submitted``: adding signatures, and setting verify's offsets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg
from aiokafka import AIOKafkaProducer

from shared.contract.events import SignCommand
from shared.contract.identity import retry_signature_id, signer_key
from shared.contract.topics import SIGNATURES_SUBMITTED, VERIFY_GROUP
from shared.kafka.records.headers import event_headers
from tests.faults.breaking.groups import Groups
from tests.faults.notes import notes_of
from tests.faults.sending.record_writer import Ends
from tests.faults.sending.surge import Accepted
from tests.faults.world import World

_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.05
_TOPIC: Final = SIGNATURES_SUBMITTED.name


class ScheduleMissed(TimeoutError):
    """The schedule waited in vain: this run says nothing about the protocol."""


async def sign(world: World, signers: Sequence[int], lanes: Sequence[int], *, way: str) -> list[str]:
    """Let each of these signers sign the busiest petition, and put the commands into these lanes, in turn.

    The lane is chosen as by a producer that knows another number of partitions than others, as happens while partitions are
    added. Every signature counts as accepted.

    Args:
        way: distinguishes several signatures of one signer.

    Returns:
        The signature ids.
    """
    petition = notes_of(world).petitions[0]
    pepper = world.environment["SIGNER_PEPPER"].encode()
    producer = AIOKafkaProducer(
        bootstrap_servers=world.bootstrap_servers,
        acks="all",
        linger_ms=200,  # all signatures of a lane in one batch: a consumer reads all of them or none
        max_batch_size=512 * 1024,
    )
    await producer.start()
    try:
        ids, sent = [], []
        for place, signer in enumerate(signers):
            email = f"twin{signer}@harbour-mail.test"
            key = signer_key(pepper, petition, email)
            signature = retry_signature_id(pepper, key, way)
            command = SignCommand(
                signature_id=signature,
                petition_id=petition,
                email=email,
                name="Robin Example",
                country="NL",
                consent=True,
                submitted_at=datetime.now(UTC),
            )
            ids.append(str(signature))
            sent.append(
                await producer.send(
                    _TOPIC,
                    command.model_dump_json().encode(),
                    key.hex.encode(),
                    partition=lanes[place % len(lanes)],
                    headers=event_headers(
                        SignCommand, event_id=signature, source="/groundswell/ingest", subject=petition
                    ),
                )
            )
            notes_of(world).accepted[str(signature)] = Accepted(petition, -1 - signer)
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    world.timeline.note("signed into lanes", lanes=lanes, signatures=len(ids), way=way)
    return ids


async def decided(world: World, signature_ids: Collection[str]) -> None:
    """Wait until PostgreSQL has the outcome of some of these signatures.

    Raises:
        ScheduleMissed: it has none.
    """
    connection = await asyncpg.connect(world.postgres_url)
    try:
        deadline = time.monotonic() + _SECONDS
        query = "SELECT EXISTS (SELECT FROM signatures WHERE signature_id = ANY($1::uuid[]))"
        while not await connection.fetchval(query, list(signature_ids)):
            if time.monotonic() > deadline:
                raise ScheduleMissed("no signature was decided meanwhile")
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await connection.close()


class VerifysOffsets:
    """The offsets of verify's group in the lanes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups = Groups(world.bootstrap_servers)
        self._ends = Ends(world.bootstrap_servers)

    def close(self) -> None:
        """Close the connection."""
        self._ends.close()

    async def lanes(self) -> list[int]:
        """All lanes."""
        return list(range(await self._groups.partitions(_TOPIC)))

    async def end(self, lane: int) -> int:
        """The offset behind the lane's last record."""
        return (await self._ends.of(_TOPIC, [lane]))[lane]

    async def move(self, lane: int, offset: int) -> None:
        """Set the group's offset, as soon as the group has no members.

        Raises:
            confluent_kafka.KafkaException: it has some for too long.
        """
        await self._groups.reset(VERIFY_GROUP.name, _TOPIC, {lane: offset})
        self._world.timeline.note("verify's offset moved", lane=lane, offset=offset)

    async def at_the_end(self, lanes: Sequence[int] | None = None) -> None:
        """Wait until everything in these lanes, or in all, is decided, published and committed.

        Raises:
            ScheduleMissed: it is not.
        """
        wanted = lanes or await self.lanes()
        deadline = time.monotonic() + _SECONDS
        while True:
            committed = await self._groups.committed(VERIFY_GROUP.name, _TOPIC)
            ends = await self._ends.of(_TOPIC, wanted)
            left = [lane for lane in wanted if committed.get(lane, 0) < ends[lane]]
            if not left:
                return
            if time.monotonic() > deadline:
                raise ScheduleMissed(f"verify is not at the end of lanes {left}")
            await asyncio.sleep(_LOOK_SECONDS)
