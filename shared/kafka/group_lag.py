"""How far each consumer group is behind, as the brokers know it: also while no member of the group is there to say so."""

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
"""A question costs each broker a few requests. Prometheus sees a new value at every second look."""

_ANSWER_SECONDS: Final = 8.0
"""For all questions of one round, so that a Kafka that hangs does not hold the loop."""

_CLOSE_SECONDS: Final = 2.0


class GroupLag:
    """Asks the brokers where each group stands and where its topic ends, and shows the difference.

    Every instance that runs this shows the same numbers: take the maximum by group and topic. While the brokers do not
    answer there is no number, and the failures are counted.

    Args:
        settings: How to reach Kafka.
        registry: Where the metrics go.
        groups: The groups to ask about.
    """

    def __init__(self, settings: KafkaSettings, registry: CollectorRegistry, groups: Sequence[Group] = GROUPS) -> None:
        self._settings, self._groups = settings, groups
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None  # of no group: it reads nothing, and knows where topics end
        self._said: dict[Group, str] = {}  # why it could not be measured, so that the log has it once
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
        """Measure again and again. Runs until it is cancelled."""
        try:
            while True:
                await self.measure()
                await asyncio.sleep(MEASURE_SECONDS)
        finally:
            await self._close()

    async def measure(self) -> None:
        """Measure every group once. A group that cannot be measured has no lag until the next round."""
        unasked = list(self._groups)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                admin, reader = await self._clients()
                # All topics: to ask for one by its name may create it.
                known = {
                    topic["topic"]: [partition["partition"] for partition in topic["partitions"]]
                    for topic in await admin.describe_topics()
                }
                while unasked:
                    await self._measure(unasked[0], known, admin, reader)
                    unasked.pop(0)
        except (KafkaError, OSError, TimeoutError) as error:
            self._unknown(error, unasked)
            await self._close()  # the next round connects anew, wherever the brokers are then

    async def _measure(
        self, group: Group, known: Mapping[str, Sequence[int]], admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer
    ) -> None:
        try:
            lag, committed = await self._ask(group, known, admin, reader)
        except BrokerResponseError as error:  # the brokers answer, and refuse: maybe this group alone
            self._unknown(error, [group])
        else:
            self._said.pop(group, None)
            self._lag.labels(group.name, group.topic.name).set(lag)
            self._committed.labels(group.name, group.topic.name).set(committed)

    @staticmethod
    async def _ask(
        group: Group, known: Mapping[str, Sequence[int]], admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer
    ) -> tuple[int, int]:
        """The group's lag, and the sum of its committed offsets. `known`: the partitions of every topic.

        Raises:
            UnknownTopicOrPartitionError: The topic does not exist yet.
            GroupCoordinatorNotAvailableError: The coordinator answers for no partition: it starts, or has moved.
            BrokerResponseError: The brokers refuse, an access rule for example.
            KafkaError, OSError, TimeoutError: The brokers do not answer.
        """
        topic = group.topic.name
        partitions = [TopicPartition(topic, number) for number in known.get(topic, ())]
        if not partitions:
            raise UnknownTopicOrPartitionError(topic)
        # Before the ends, so that what is committed meanwhile is not beyond them. The partitions are named because the
        # embedded broker cannot list them.
        found = await admin.list_consumer_group_offsets(group.name, partitions=partitions)
        if set(partitions) - found.keys():  # an error of the whole answer comes as an answer about no partition
            raise GroupCoordinatorNotAvailableError(group.name)
        committed = {tp: max(0, found[tp].offset) for tp in partitions}  # -1: nothing was ever committed
        starts, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        # What retention has deleted cannot be read any more, so it is no part of the lag. The embedded broker gives the
        # offset after its last batch's first record as the end: there the last batch counts as one record.
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
        except (KafkaError, OSError, TimeoutError) as error:  # the sockets are closed with the process at the latest
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
