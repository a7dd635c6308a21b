"""Computes instances, partitions, bytes and ceilings from measured costs.

A number that needs a cost that was not measured is not computed; it names that cost instead.
"""

from __future__ import annotations

import math
from typing import Final

from deploy.capacity.answer import Capacity, Ceiling, Estimate, Line, combine
from deploy.capacity.costs import MeasuredCosts
from deploy.capacity.demand import Demand
from services.tally.settings import Settings as TallySettings
from shared.contract.topics import (
    DEFAULT_PARTITIONS,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    Topic,
)

MAX_STREAMS: Final = int(TallySettings.model_fields["max_streams"].default)

_KB: Final = 1024
_MB: Final = 1024 * _KB
_MINUTES_A_DAY: Final = 1440


def whole(number: float) -> int:
    """Round `number` up, except if it exceeds an integer only by a rounding error."""
    return math.ceil(round(number, 9))


def capacity(demand: Demand, costs: MeasuredCosts) -> Capacity:
    """Compute the capacity for `demand`."""
    return _Computation(demand, costs).result()


class _Computation:
    """The arithmetic, one method per group of lines."""

    def __init__(self, demand: Demand, costs: MeasuredCosts) -> None:
        self._demand, self._costs = demand, costs
        self._ingest = self._cores("ingest_cpu", demand.rate)
        self._verify = self._cores("verify_cpu", demand.rate)
        self._counting = self._cores("tally_cpu", demand.facts)
        self._streaming = self._cores("stream_cpu", demand.viewers * demand.updates)
        self._ingest_instances = combine(self._instances, self._ingest)
        self._verify_instances = combine(self._instances, self._verify)
        self._tally_instances = combine(self._instances_of_tally, self._counting, self._streaming)

    def result(self) -> Capacity:
        lines = [*self._services(), *self._kafka(), *self._postgres(), *self._redis(), *self._viewers()]
        return Capacity(self._demand, tuple(lines), self._ceilings(), self._remarks())

    def _cost(self, name: str) -> Estimate:
        value = self._costs.value(name)
        return Estimate(value) if value is not None else Estimate(None, (name,))

    def _times(self, name: str, count: float) -> Estimate:
        """Return `count` times a cost; 0 for a count of 0, even if the cost is unknown."""
        return combine(lambda cost: count * cost, self._cost(name)) if count else Estimate(0.0)

    def _cores(self, name: str, per_second: float) -> Estimate:
        return combine(lambda us: us / 1e6, self._times(name, per_second))

    def _instances(self, cores: float) -> int:
        return max(1, whole(cores / self._demand.utilisation))

    def _instances_of_tally(self, counting: float, streaming: float) -> int:
        """Return the instances that CPU and streams need. One of them counts the petition and serves its share of viewers."""
        least = max(self._instances(counting + streaming), whole(self._demand.viewers / MAX_STREAMS))
        beside_counting = self._demand.utilisation - counting
        if beside_counting <= 0:  # one petition then exceeds its single writer: see the ceilings
            return least
        return max(least, whole(streaming / beside_counting))

    # ---------------------------------------------------------------------------------------------------------- lines

    def _services(self) -> list[Line]:
        tally = combine(lambda counting, streaming: counting + streaming, self._counting, self._streaming)
        streams = self._times("stream_rss", self._demand.viewers * _KB)
        one = Estimate(1.0)  # its work grows with milestones, a few dozen for a petition, not with signatures
        return [
            Line("ingest", "CPU", self._ingest, "cores"),
            Line("ingest", "instances", self._ingest_instances, ""),
            Line("ingest", "memory", self._memory("ingest_rss", self._ingest_instances), "B memory"),
            Line("verify", "CPU", self._verify, "cores"),
            Line("verify", "instances", self._verify_instances, ""),
            Line("verify", "memory", self._memory("verify_rss", self._verify_instances), "B memory"),
            Line("tally", "CPU", tally, "cores"),
            Line("tally", "instances", self._tally_instances, ""),
            Line(
                "tally",
                "memory",
                combine(lambda a, b: a + b, self._memory("tally_rss", self._tally_instances), streams),
                "B memory",
            ),
            Line("notify", "instances", one, ""),
            Line("notify", "memory", self._memory("notify_rss", one), "B memory"),
        ]

    def _memory(self, name: str, instances: Estimate) -> Estimate:
        return combine(lambda each, count: each * _MB * count, self._cost(name), instances)

    def _kafka(self) -> list[Line]:
        demand = self._demand
        snapshots = min(demand.petitions * 1000 / demand.snapshot_interval_ms, demand.facts)
        submitted = self._times("submitted_bytes", demand.rate)
        verified = self._times("verified_bytes", demand.facts)
        rejected = self._times("rejected_bytes", demand.rate - demand.facts)
        tallies = self._times("snapshot_bytes", snapshots)
        produced = combine(lambda *each: sum(each), submitted, verified, rejected, tallies)
        copies = combine(lambda once: (demand.replication - 1) * once, produced)
        read = combine(lambda a, b, c, n: a + b + c * n, submitted, verified, tallies, self._tally_instances)
        one_partition = self._times("verified_bytes", demand.facts)
        stored = combine(
            lambda *each: demand.replication * sum(each),
            self._kept(SIGNATURES_SUBMITTED, "submitted_bytes", demand.submissions, demand.rate),
            self._kept(SIGNATURES_VERIFIED, "verified_bytes", demand.signatures, demand.facts),
            self._kept(
                SIGNATURES_REJECTED,
                "rejected_bytes",
                demand.submissions - demand.signatures,
                demand.rate - demand.facts,
            ),
        )
        return [
            Line("Kafka", "partitions of signatures.submitted", combine(_partitions, self._verify_instances), ""),
            Line(
                "Kafka",
                "partitions of signatures.verified",
                combine(lambda cores: _partitions(self._instances(cores)), self._counting),
                "",
            ),
            Line("Kafka", "CPU, for one copy", self._cores("kafka_cpu", demand.rate), "cores"),
            Line("Kafka", "produced", produced, "B/s"),
            Line("Kafka", "written, all copies", combine(lambda a, b: a + b, produced, copies), "B/s"),
            Line("Kafka", "sent to followers and services", combine(lambda a, b: a + b, copies, read), "B/s"),
            Line("Kafka", "facts of one petition, one partition", one_partition, "B/s"),
            Line("Kafka", "stored, all copies", stored, "B"),
        ]

    def _kept(self, topic: Topic, name: str, records: float, per_second: float) -> Estimate:
        """Return the bytes of one replica of a topic: all records, or those of its retention time."""
        assert topic.retention is not None
        return self._times(name, min(records, per_second * topic.retention.total_seconds()))

    def _postgres(self) -> list[Line]:
        demand = self._demand
        stored = combine(
            lambda signatures, ledger: signatures + ledger,
            self._times("signature_row_bytes", demand.submissions),
            self._times("ledger_row_bytes", demand.signatures),
        )
        return [
            Line("PostgreSQL", "rows of signatures", Estimate(float(whole(demand.submissions))), ""),
            Line("PostgreSQL", "rows of the ledger", Estimate(float(demand.signatures)), ""),
            Line("PostgreSQL", "stored, with indexes", stored, "B"),
            Line("PostgreSQL", "write-ahead log", self._times("wal_bytes", demand.rate), "B/s"),
            Line(
                "PostgreSQL",
                "write-ahead log after a checkpoint",
                self._times("wal_bytes_after_checkpoint", demand.rate),
                "B/s",
            ),
            Line("PostgreSQL", "CPU", self._cores("postgres_cpu", demand.rate), "cores"),
        ]

    def _redis(self) -> list[Line]:
        demand = self._demand
        minutes = min(demand.signatures, demand.petitions * demand.days * _MINUTES_A_DAY)
        held = combine(
            lambda petitions, by_minute: petitions + by_minute,
            self._times("redis_petition_bytes", demand.petitions),
            self._times("redis_minute_bytes", minutes),
        )
        return [
            Line("Redis", "memory", held, "B memory"),
            Line("Redis", "append-only file", self._times("redis_aof_bytes", demand.facts), "B/s"),
            Line("Redis", "CPU", self._cores("redis_cpu", demand.facts), "cores"),
        ]

    def _viewers(self) -> list[Line]:
        demand = self._demand
        if not demand.viewers:
            return []
        one_process = combine(
            lambda us: min(MAX_STREAMS, math.floor(demand.utilisation * 1e6 / (us * demand.updates))),
            self._cost("stream_cpu"),
        )
        return [
            Line("viewers", "updates to each", Estimate(demand.updates), "/s"),
            Line("viewers", "memory in tally", self._times("stream_rss", demand.viewers * _KB), "B memory"),
            Line("viewers", "CPU in tally", self._streaming, "cores"),
            Line("viewers", "sent", self._times("stream_bytes", demand.viewers * demand.updates), "B/s"),
            Line("viewers", "that one process carries", one_process, ""),
        ]

    # ------------------------------------------------------------------------------------------------------- ceilings

    def _ceilings(self) -> tuple[Ceiling, ...]:
        demand = self._demand
        counts = 1 - demand.duplicates

        def one_core(name: str, per_submission: float = 1.0) -> Estimate:
            return combine(lambda us: demand.utilisation * 1e6 / (us * per_submission), self._cost(name))

        postgres, tally, redis = one_core("postgres_cpu"), one_core("tally_cpu", counts), one_core("redis_cpu", counts)
        server = combine(lambda rate: rate * demand.postgres_cores, postgres)
        return (
            Ceiling("ingest", one_core("ingest_cpu"), None, "more instances"),
            Ceiling("verify", one_core("verify_cpu"), None, "more instances, and partitions of signatures.submitted"),
            Ceiling("Kafka", one_core("kafka_cpu"), None, "more brokers"),
            Ceiling("PostgreSQL", postgres, server, "a larger server: one takes all writes"),
            Ceiling("tally, one petition", tally, tally, "a faster core: a petition has one writer"),
            Ceiling("Redis, one petition", redis, redis, "a faster core: a petition is in one place"),
        )

    def _remarks(self) -> tuple[str, ...]:
        remarks = []
        rows = self._costs.value("postgres_rows")
        if rows is not None and self._demand.submissions > rows:
            remarks.append(
                f"PostgreSQL was measured with {rows:,.0f} signatures, fewer than the {self._demand.submissions:,.0f}"
                " here: that its cost stays the same beyond is assumed."
            )
        return tuple(remarks)


def _partitions(instances: float) -> int:
    """Return a number of partitions with at least one per instance that divides as evenly as `DEFAULT_PARTITIONS`."""
    return whole(instances / DEFAULT_PARTITIONS) * DEFAULT_PARTITIONS
