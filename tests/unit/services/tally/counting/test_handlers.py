"""What tally takes for a fact, and which petitions a process counts."""

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.handlers import TallyHandler, decode
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from shared.contract.catalogue import Catalogue
from shared.contract.events import CountedFact, SignatureRejected, TallyUpdated
from shared.kafka.records.record import Headers
from shared.runtime.failures import InvalidRecord
from tests.support.signing import FERRY, PATH, MemoryProducer, fact, petition, record

SIGNED = fact(7, lane=3)
WITHDRAWN = fact(8, -1, lane=3)


def with_field(field: str, value: object, told: CountedFact = SIGNED) -> bytes:
    return json.dumps({**told.model_dump(mode="json"), field: value}).encode()


def headers_of(told: CountedFact = SIGNED, **changes: bytes | None) -> Headers:
    """The headers of a fact; None leaves one out."""
    own = cast("Headers", record(told).headers)
    found = [(name, changes.get(name.removeprefix("ce_"), old)) for name, old in own]
    return [(name, value) for name, value in found if value is not None]


def invalid(value: bytes | None, *, key: bytes | None = PATH.encode(), headers: Headers | None = None) -> InvalidRecord:
    with pytest.raises(InvalidRecord) as error:
        decode(record(value, key=key, headers=headers or headers_of()))
    return error.value


@pytest.mark.parametrize("told", [SIGNED, WITHDRAWN])
def test_a_fact_is_read(told: CountedFact) -> None:
    assert decode(record(told, key=PATH.encode())) == told.model_dump()


def test_a_field_that_a_later_version_added_is_ignored() -> None:
    fact = decode(record(with_field("mood", "calm"), key=PATH.encode(), headers=headers_of()))
    assert fact == SIGNED.model_dump()


@pytest.mark.parametrize("headers", [[("ce_id", b"1")], headers_of(specversion=b"0.3"), headers_of(id=None)])
def test_a_record_without_the_headers_of_an_event_is_no_fact(headers: Headers) -> None:
    assert invalid(SIGNED.model_dump_json().encode(), headers=headers).reason == "not_a_cloud_event"


@pytest.mark.parametrize("other", [SignatureRejected.TYPE, TallyUpdated.TYPE, "groundswell.signature.verified.v2"])
def test_another_event_is_no_fact(other: str) -> None:
    error = invalid(SIGNED.model_dump_json().encode(), headers=headers_of(type=other.encode()))
    assert error.reason == "unknown_type"
    assert other not in error.detail


def test_a_record_without_a_value_is_no_fact() -> None:
    assert invalid(None).reason == "no_value"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"", "(body)"),
        (b"\xff", "(body)"),
        (b"{}", "signature_id"),
        (with_field("lane", -1), "lane"),
        (with_field("position", 0), "position"),
        (with_field("position", "7"), "position"),
        (with_field("delta", 2), "delta"),
        (with_field("delta", -1), "delta"),
        (with_field("country", "nl"), "country"),
        (with_field("signed_at", "noon"), "signed_at"),
    ],
)
def test_a_value_that_is_no_fact_is_told_by_its_field(value: bytes, field: str) -> None:
    error = invalid(value)
    assert error.reason == "schema"
    assert error.detail.startswith(f"{field}: ")


def test_a_signature_that_is_revoked_cannot_add() -> None:
    added = record(with_field("delta", 1, WITHDRAWN), key=PATH.encode(), headers=headers_of(WITHDRAWN))
    with pytest.raises(InvalidRecord, match="schema"):
        decode(added)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position", 2**52 + 1),
        ("position", 10**30),
        ("lane", 2**31),
        ("signed_at", "0001-01-01T00:00:00+14:00"),
        ("signed_at", "9999-12-31T23:59:59Z"),
        ("occurred_at", "0001-01-01T00:00:00+14:00"),
        ("occurred_at", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_what_the_ledger_cannot_hold_is_no_fact_of_it(field: str, value: object) -> None:
    assert invalid(with_field(field, value)).reason == "out_of_range"


@pytest.mark.parametrize("field", ["signed_at", "occurred_at"])
def test_a_fact_of_a_later_day_than_verify_can_have_taken_is_refused(field: str) -> None:
    arrived = datetime(2026, 11, 22, tzinfo=UTC)
    value = with_field(field, "2026-11-24T02:00:00+02:00")
    assert decode(record(value, key=PATH.encode(), headers=headers_of(), arrived=arrived))
    late = with_field(field, "2026-11-24T02:00:00.001+02:00")
    with pytest.raises(InvalidRecord, match="out_of_range"):
        decode(record(late, key=PATH.encode(), headers=headers_of(), arrived=arrived))


@pytest.mark.parametrize("key", [None, b"", FERRY.encode(), b"\xff"])
def test_a_fact_under_the_key_of_another_petition_is_refused_for_it_would_have_two_writers(key: bytes | None) -> None:
    assert invalid(SIGNED.model_dump_json().encode(), key=key).reason == "key"


@given(value=st.binary(max_size=200), key=st.none() | st.binary(max_size=40))
def test_no_record_whatever_is_in_it_is_a_bug(value: bytes, key: bytes | None) -> None:
    for told in (SIGNED, WITHDRAWN):
        with pytest.raises(InvalidRecord):
            decode(record(value, key=key, headers=headers_of(told)))


@given(field=st.sampled_from(sorted(SIGNED.model_dump())), word=st.text(min_size=4, max_size=40))
def test_what_is_said_of_an_invalid_record_never_repeats_it(field: str, word: str) -> None:
    typed = f"zq{word}qz"
    assert typed not in str(invalid(with_field(field, typed)))


# ---------------------------------------------------------------------------------------------------- who counts what


def handler(catalogue: Catalogue, *, partitions: int) -> TallyHandler:
    metrics = TallyMetrics(CollectorRegistry())
    producer = MemoryProducer(partitions=partitions)
    nothing: Any = None  # no store is read here
    store, ledger = cast("TallyStore", nothing), cast("Ledger", nothing)
    return TallyHandler(
        catalogue=catalogue,
        store=store,
        ledger=ledger,
        healer=Healer(redis=nothing, store=store, ledger=ledger, metrics=metrics),
        milestones=MilestoneAnnouncer(ledger=ledger, store=store, producer=producer, metrics=metrics),
        snapshots=SnapshotAnnouncer(store=store, producer=producer, metrics=metrics, interval_seconds=1),
        producer=producer,
        metrics=metrics,
    )


async def test_a_petition_is_counted_by_the_owner_of_its_partition_alone() -> None:
    catalogue = Catalogue()
    names = [f"petition-{number}" for number in range(40)]
    for name in names:
        catalogue.apply(petition(name))
    one, other = handler(catalogue, partitions=12), handler(catalogue, partitions=12)
    await one.on_assigned({0, 1, 2, 3, 4})
    await other.on_assigned(set(range(5, 12)))
    first, second = await one.owns(), await other.owns()
    assert first.keys() == second.keys() == set(names)
    assert all(first[name] != second[name] for name in names)
    assert any(first.values())
    assert any(second.values())
    await one.on_revoked({0, 1, 2, 3, 4})
    assert not any((await one.owns()).values())
    assert one.owned == frozenset()


@pytest.mark.parametrize(
    # Kafka's own test vectors for murmur2 (org.apache.kafka.common.utils.UtilsTest).
    ("petition_id", "hashed"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-longer-string", -1486304829)],
)
async def test_a_petition_has_the_partition_that_every_other_client_computes(petition_id: str, hashed: int) -> None:
    catalogue = Catalogue()
    catalogue.apply(petition(petition_id))
    counting = handler(catalogue, partitions=12)
    await counting.on_assigned({(hashed & 0x7FFFFFFF) % 12})
    assert await counting.owns() == {petition_id: True}


async def test_only_the_owner_answers_a_snapshot_that_came_too_late() -> None:
    catalogue = Catalogue()
    catalogue.apply(petition(PATH))
    owner, other = handler(catalogue, partitions=1), handler(catalogue, partitions=1)
    await owner.on_assigned({0})
    for one in (owner, other):
        await one.owns()  # learns how many partitions there are
        one.on_overtaken(PATH, 7)
    assert [one.metrics.snapshots_overtaken._value.get() for one in (owner, other)] == [1, 0]
