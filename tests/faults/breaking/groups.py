"""What an operator does to topics and consumer groups with Kafka's own tools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

_TRY_SECONDS: Final = 40.0
"""Seconds: a group is empty when the last member's session has expired; the broker may be away for a while too."""
_AGAIN_SECONDS: Final = 0.5
_ASK_SECONDS: Final = 5.0

T = TypeVar("T")


class Groups:
    """An administrative connection to the broker.

    Args:
        bootstrap_servers: the broker itself, not a proxy.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    async def partitions(self, topic: str) -> int:
        """The number of partitions of `topic`."""
        known = await self._insist(
            lambda: asyncio.to_thread(lambda: self._admin.list_topics(topic, timeout=_ASK_SECONDS))
        )
        return len(known.topics[topic].partitions)

    async def add_partition(self, topic: str, *, have: int) -> None:
        """Add a partition to a topic that has `have`.

        Raises:
            KafkaException: the broker refuses.
        """
        asked = self._admin.create_partitions([NewPartitions(topic, have + 1)], request_timeout=_ASK_SECONDS)
        await asyncio.wrap_future(asked[topic])

    async def owned(self, group: str, topic: str) -> set[int]:
        """The partitions of `topic` that are assigned to members of `group`."""

        async def ask() -> Any:
            return await asyncio.wrap_future(
                self._admin.describe_consumer_groups([group], request_timeout=_ASK_SECONDS)[group]
            )

        described = await self._insist(ask)
        return {
            owned.partition
            for member in described.members
            for owned in (member.assignment.topic_partitions if member.assignment else [])
            if owned.topic == topic
        }

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """The offset that `group` has committed in each partition of `topic`; none where it has committed nothing."""

        async def ask() -> Any:
            return await asyncio.wrap_future(
                self._admin.list_consumer_group_offsets(
                    [ConsumerGroupTopicPartitions(group)], request_timeout=_ASK_SECONDS
                )[group]
            )

        answer = await self._insist(ask)
        return {
            found.partition: found.offset
            for found in answer.topic_partitions
            if found.topic == topic and found.offset >= 0
        }

    async def reset(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Set the offsets of a group without members.

        Raises:
            KafkaException: it still has members, or the broker does not answer, for `_TRY_SECONDS`.
        """
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]

        async def ask() -> None:
            asked = self._admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=_ASK_SECONDS
            )
            answer = await asyncio.wrap_future(asked[group])
            for partition in answer.topic_partitions:
                if partition.error is not None:
                    raise KafkaException(partition.error)

        await self._insist(ask)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + _TRY_SECONDS
        while True:
            try:
                return await ask()
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)
