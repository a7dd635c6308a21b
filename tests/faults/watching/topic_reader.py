"""Reads the topics from outside: with librdkafka, directly from the broker, in its own thread.

The thread survives a broker that is killed, paused or restarted, and finds added partitions.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from tests.faults.judging.personal import PersonalData
from tests.faults.watching.seen import WATCHED, Reading, Seen

_LOOK_FOR_PARTITIONS_SECONDS: Final = 3.0

_silent = logging.getLogger("tests.faults.librdkafka")
"""Otherwise librdkafka would write a line for every retry while a broker is away."""
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class TopicReader:
    """Reads the watched topics from their present ends on, until `stop`.

    Args:
        bootstrap_servers: the broker itself, not a proxy.
        prefix: of the ids of this run's petitions.
        personal: data that may be in no record but those of ``signatures.submitted``.

    Attributes:
        seen: what was read so far. It grows in another thread: copy before iterating while it runs.
        starts: the ends from which it read, by topic and partition.
    """

    def __init__(self, bootstrap_servers: str, *, prefix: str, personal: PersonalData) -> None:
        self._reading = Reading(prefix, personal)
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "outside",  # never used: nothing is subscribed or committed
                "enable.auto.commit": False,
                # If the broker lost records, this must be an error, not a silent restart.
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 250,
                "fetch.message.max.bytes": 4 * 1024 * 1024,
                "reconnect.backoff.max.ms": 500,
                "queued.max.messages.kbytes": 64 * 1024,
                "log_level": 0,
            },
            logger=_silent,
        )
        self.starts: dict[str, dict[int, int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="topic reader", daemon=True)

    @property
    def seen(self) -> Seen:
        """What was read so far."""
        return self._reading.seen

    def start(self) -> None:
        """Find the ends and start reading. Blocks for a moment.

        Raises:
            confluent_kafka.KafkaException: the broker does not answer.
        """
        known = self._consumer.list_topics(timeout=20).topics
        for topic in WATCHED:
            self.starts[topic] = {
                partition: self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)[1]
                for partition in known[topic].partitions
            }
        self._consumer.assign(
            [
                TopicPartition(topic, partition, end)
                for topic, ends in self.starts.items()
                for partition, end in ends.items()
            ]
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop reading. Blocks until the thread has ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        looked = time.monotonic()
        try:
            while not self._stopping.is_set():
                for record in self._consumer.consume(num_messages=500, timeout=0.1):
                    self._take(record)
                if time.monotonic() - looked > _LOOK_FOR_PARTITIONS_SECONDS:
                    self._add_partitions()
                    looked = time.monotonic()
        except BaseException as error:  # if the thread died silently, nothing wrong would be found
            self.seen.troubles.append(f"the reader ended: {error!r}")
            raise

    def _take(self, record: Message) -> None:
        error = record.error()
        if error is None:
            self._reading.take(record)
        elif not error.retriable() and error.code() not in _PASSING:
            self.seen.troubles.append(str(error))

    def _add_partitions(self) -> None:
        try:
            known = self._consumer.list_topics(timeout=1).topics
        except KafkaException:
            return  # the broker is away; the next round retries
        new = [
            TopicPartition(topic, partition, 0)
            for topic, starts in self.starts.items()
            if topic in known
            for partition in known[topic].partitions
            if partition not in starts
        ]
        if new:
            self._consumer.incremental_assign(new)
            for added in new:
                self.starts[added.topic][added.partition] = 0


_PASSING: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError._PARTITION_EOF,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,  # a broker that has just started answers this before it has read its metadata
    }
)
"""Errors that librdkafka reports while a broker is away; it recovers by itself."""
