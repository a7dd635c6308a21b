"""Measures each consumer group's lag at the brokers, so that it is known even while the group has no member."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    BrokerResponseError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    UnknownTopicOrPartitionError,
)
from prometheus_client import CollectorRegistry, Counter, Gauge

from shared.contract.topics import GROUPS, Group
from shared.kafka.security import client_options
from shared.runtime.settings import KafkaSettings

log = structlog.get_logger(__name__)

MEASURE_SECONDS: Final = 10.0
"""A measurement costs each broker a few requests. Prometheus sees a new value at every second scrape."""

_ANSWER_SECONDS: Final = 8.0
"""Limit for all requests of one round, so that a Kafka that hangs does not block the loop."""

_CLOSE_SECONDS: Final = 2.0


class GroupLag:
    """Exports the difference between each topic's end offsets and the offsets that its group has committed.

    Every instance that runs this exports the same values: take the maximum by group and topic. While the brokers do not
    answer, the values are absent and the failures are counted.

    Args:
        settings: The Kafka connection.
        registry: The registry of the metrics.
        groups: The groups to measure.
    """

    def __init__(self, settings: KafkaSettings, registry: CollectorRegistry, groups: Sequence[Group] = GROUPS) -> None:
        self._settings, self._groups = settings, groups
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None  # without a group; it reads nothing and is asked for end offsets
        self._said: dict[Group, str] = {}  # the cause of the last failure, so that each is logged once
        self._lag = Gauge(
            "groundswell_group_lag_records",
            "Records that the group has not committed yet, according to the brokers; absent while they do not answer",
            ["group", "topic"],
            registry=registry,
        )
        self._committed = Gauge(
            "groundswell_group_committed_offset",
            "Sum of the group's committed offsets over the topic's partitions; constant while nothing is committed",
            ["group", "topic"],
            registry=registry,
        )
        self._failures = Counter(
            "groundswell_group_lag_failures",
            "Failed measurements of a group's lag, by cause; retried after ten seconds",
            ["cause"],
            registry=registry,
        )

    async def run(self) -> None:
        """Measure every ten seconds. Runs until cancelled."""
        try:
            while True:
                await self.measure()
                await asyncio.sleep(MEASURE_SECONDS)
        finally:
            await self._close()

    async def measure(self) -> None:
        """Measure every group once. The metrics of a group that cannot be measured are absent until the next round."""
        unasked = list(self._groups)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                admin, reader = await self._clients()
                # All topics: a request for one by name may create it.
                known = {
                    topic["topic"]: [partition["partition"] for partition in topic["partitions"]]
                    for topic in await admin.describe_topics()
                }
                while unasked:
                    await self._measure(unasked[0], known, admin, reader)
                    unasked.pop(0)
        except (KafkaError, OSError, TimeoutError) as error:
            self._unknown(error, unasked)
            await self._close()  # the next round connects anew: the brokers may have moved

    async def _measure(
        self, group: Group, known: Mapping[str, Sequence[int]], admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer
    ) -> None:
        try:
            lag, committed = await self._ask(group, known, admin, reader)
        except BrokerResponseError as error:  # the brokers refused; it may concern this group only
            self._unknown(error, [group])
        else:
            self._said.pop(group, None)
            self._lag.labels(group.name, group.topic.name).set(lag)
            self._committed.labels(group.name, group.topic.name).set(committed)

    @staticmethod
    async def _ask(
        group: Group, known: Mapping[str, Sequence[int]], admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer
    ) -> tuple[int, int]:
        """Return the group's lag and the sum of its committed offsets. `known` has the partitions of every topic.

        Raises:
            UnknownTopicOrPartitionError: the topic does not exist yet.
            GroupCoordinatorNotAvailableError: the coordinator answers for no partition: it is starting or has moved.
            BrokerResponseError: the brokers refuse, for example because of an ACL.
            KafkaError, OSError, TimeoutError: the brokers do not answer.
        """
        topic = group.topic.name
        partitions = [TopicPartition(topic, number) for number in known.get(topic, ())]
        if not partitions:
            raise UnknownTopicOrPartitionError(topic)
        # Read before the end offsets, so that no committed offset is beyond them. The partitions are named because the
        # embedded broker cannot list them.
        found = await admin.list_consumer_group_offsets(group.name, partitions=partitions)
        if set(partitions) - found.keys():  # aiokafka returns an error of the whole response as a missing partition
            raise GroupCoordinatorNotAvailableError(group.name)
        committed = {tp: max(0, found[tp].offset) for tp in partitions}  # -1: nothing was ever committed
        starts, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        # Records that retention has deleted cannot be read, so they are not part of the lag. The embedded broker's end is
        # the offset after the first record of its last batch, so there the last batch counts as one record.
        lag = sum(max(0, ends[tp] - max(starts[tp], committed[tp])) for tp in partitions)
        return lag, sum(committed.values())

    async def _clients(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None or self._reader is None:
            options = {
                **client_options(self._settings),
                "bootstrap_servers": self._settings.kafka_bootstrap_servers,
                "client_id": "groundswell-group-lag",
                "request_timeout_ms": int(_ANSWER_SECONDS * 1000),
            }
            self._admin, self._reader = AIOKafkaAdminClient(**options), AIOKafkaConsumer(**options)
            await self._admin.start()
            await self._reader.start()
        return self._admin, self._reader

    async def _close(self) -> None:
        admin, reader, self._admin, self._reader = self._admin, self._reader, None, None
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if admin is not None:
                    await admin.close()
                if reader is not None:
                    await reader.stop()
        except (
            KafkaError,
            OSError,
            TimeoutError,
        ) as error:  # the sockets are closed at the latest when the process ends
            log.info("group_lag_client_not_closed", cause=type(error).__name__)

    def _unknown(self, error: Exception, groups: Sequence[Group]) -> None:
        cause = type(error).__name__
        for group in groups:
            if self._said.get(group) != cause:
                log.warning("group_lag_unknown", group=group.name, cause=cause)
            self._said[group] = cause
            self._failures.labels(cause).inc()
            for metric in (self._lag, self._committed):
                metric.remove_by_labels({"group": group.name})
