"""Ownership: which petitions this process counts.

Contract: a petition has one owner, the process to which Kafka has assigned the partition of its facts. All work beside the
batches (healing, milestones, answers on ``tallies.updated``) is done for owned petitions only. The number of partitions is
read from Kafka once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shared.contract.catalogue import Catalogue
from shared.contract.topics import SIGNATURES_VERIFIED
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.producing.producer import EventProducer


class Ownership:
    """The partitions that are assigned to this process, and their petitions.

    Args:
        catalogue: The petitions.
        producer: Knows the number of partitions of ``signatures.verified``.
    """

    def __init__(self, *, catalogue: Catalogue, producer: EventProducer) -> None:
        self._catalogue, self._producer = catalogue, producer
        self._owned: frozenset[int] = frozenset()
        self._count: int | None = None

    def assign(self, partitions: set[int]) -> None:
        """Own these partitions from now on, and no others."""
        self._owned = frozenset(partitions)

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions whose petitions this process counts."""
        return self._owned

    async def partitioner(self) -> Callable[[str], int]:
        """The function that gives the partition of a petition's facts.

        Raises:
            aiokafka.errors.KafkaError: the number of partitions is not known yet, and Kafka is away.
        """
        if self._count is None:
            self._count = await self._producer.partitions(SIGNATURES_VERIFIED.name)
        return partial(_partition, self._count)

    def owns(self, petition_id: str) -> bool:
        """Whether this process counts the petition; False while it or the number of partitions is unknown."""
        return (
            self._count is not None
            and self._catalogue.get(petition_id) is not None
            and _partition(self._count, petition_id) in self._owned
        )

    async def petitions(self) -> dict[str, bool]:
        """All petitions of the catalogue by id, and whether this process counts them. Errors as those of `partitioner`."""
        partition = await self.partitioner()
        return {petition.petition_id: partition(petition.petition_id) in self._owned for petition in self._catalogue}


def _partition(count: int, petition_id: str) -> int:
    return partition_of(petition_id.encode(), count)
