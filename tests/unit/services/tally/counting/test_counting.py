"""What a batch of facts does to a tally: replays, cuts and orders change nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.tally.counting.facts import ReadFact
from services.tally.counting.step import (
    UNKNOWN,
    Step,
    by_petition,
    first_positions,
    lost_state,
    minute_text,
    step,
)
from shared.contract.events import minute_of
from tests.support import signing
from tests.support.signing import FERRY, NOON, PATH


def fact(position: int, delta: int = 1, **fields: Any) -> ReadFact:
    """See `signing.fact`; as tally reads it."""
    (read,) = signing.as_read(signing.fact(position, delta, **fields))
    return read


@dataclass
class Stored:
    """A tally as apply.lua keeps it: a step is applied when its fences are where it expects them, whole or not at all."""

    fences: dict[int, int] = field(default_factory=dict)
    count: int = 0
    revision: int = 0
    highest: int = 0
    countries: Counter[str] = field(default_factory=Counter)
    minutes: Counter[int] = field(default_factory=Counter)

    def apply(self, part: Step) -> dict[int, int] | None:
        """None when it was applied, else the fences of its lanes."""
        if any(self.fences.get(lane, 0) != expected for lane, (expected, _) in part.lanes.items()):
            return {lane: self.fences.get(lane, 0) for lane in part.lanes}
        for lane, (expected, after) in part.lanes.items():
            assert after >= expected, "a fence never falls"
            self.fences[lane] = after
        self.highest = max(self.highest, self.count + part.peak)
        self.count += part.delta
        self.revision += part.changes
        self.countries.update(part.countries)
        self.minutes.update(part.minutes)
        return None

    def count_in(self, facts: Sequence[ReadFact], known: dict[int, int]) -> dict[int, int]:
        """Count facts as a process does that knows these fences. Returns what it knows afterwards."""
        for _ in range(3):
            part = step(facts, known)
            stored = self.apply(part)
            if stored is None:
                return part.fences_after(known)
            known = {**known, **stored}
        raise AssertionError("asked once, the fences are known")


def facts_of(deltas: Sequence[tuple[int, int, str, int]]) -> list[ReadFact]:
    """(lane, delta, country, minute) in the order of the topic, as facts: positions rise by 1 to 3 in each lane."""
    positions: Counter[int] = Counter()
    facts: list[ReadFact] = []
    for place, (lane, delta, country, minute) in enumerate(deltas):
        positions[lane] += 1 + place % 3  # other petitions have the positions in between
        facts.append(fact(positions[lane], delta, lane=lane, country=country, minute=minute))
    return facts


streams = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([1, 1, -1]), st.sampled_from(["NL", "BE", "SE"]), st.integers(-3, 3)
    ),
    max_size=40,
).map(facts_of)  # fmt: skip


@given(
    stream=streams,
    deliveries=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15), st.booleans()), max_size=25),
)
def test_a_tally_is_the_set_of_its_facts_however_they_are_cut_and_delivered_again(
    stream: list[ReadFact], deliveries: list[tuple[int, int, bool]]
) -> None:
    stored, known, done = Stored(), dict[int, int](), 0
    for back, size, forgotten in [*deliveries, (0, 40, True)]:
        start = max(0, done - back)  # a redelivery begins somewhere before, never behind what was not delivered yet
        batch = stream[start : start + size]
        known = stored.count_in(batch, {} if forgotten else known)  # a new owner knows nothing
        done = max(done, start + len(batch))
    counted = stream[:done]
    assert stored.count == sum(one["delta"] for one in counted)
    assert stored.revision == len(counted)
    assert stored.fences == {one["lane"]: one["position"] for one in counted}
    assert {code: n for code, n in stored.countries.items() if n} == _sums((one["country"], one) for one in counted)
    assert {minute: n for minute, n in stored.minutes.items() if n} == _sums(
        (minute_of(one["signed_at"]), one) for one in counted
    )
    assert stored.highest == max(accumulate((one["delta"] for one in counted), initial=0)), (
        "a threshold that was passed for a moment was passed, whatever the batches"
    )


def _sums(pairs: Iterable[tuple[Any, ReadFact]]) -> dict[Any, int]:
    sums: Counter[Any] = Counter()
    for key, one in pairs:
        sums[key] += one["delta"]
    return {key: number for key, number in sums.items() if number}


@given(stream=streams, fences=st.dictionaries(st.integers(0, 3), st.integers(0, 60)))
def test_fences_never_fall_and_only_in_the_lanes_of_the_facts(stream: list[ReadFact], fences: dict[int, int]) -> None:
    part = step(stream, fences)
    assert part.lanes.keys() == {one["lane"] for one in stream}
    after = part.fences_after(fences)
    assert all(after[lane] >= position for lane, position in fences.items())
    assert {lane: after[lane] for lane in fences.keys() - part.lanes.keys()} == {
        lane: fences[lane] for lane in fences.keys() - part.lanes.keys()
    }


@given(stream=streams.filter(bool))
def test_a_lane_whose_fence_is_not_known_asks_and_counts_nothing(stream: list[ReadFact]) -> None:
    part = step(stream, {})
    assert part == Step(lanes=dict.fromkeys({one["lane"] for one in stream}, (UNKNOWN, UNKNOWN)), first=True)
    stored = Stored(fences={0: 5})
    assert stored.apply(part) == {lane: 5 if lane == 0 else 0 for lane in part.lanes}
    assert stored == Stored(fences={0: 5})


def test_a_fact_at_or_below_the_fence_is_a_redelivery() -> None:
    part = step([fact(4), fact(5), fact(6), fact(6), fact(5), fact(8)], {0: 5})
    assert (part.delta, part.changes, part.lanes) == (2, 2, {0: (5, 8)})


def test_facts_that_are_all_redelivered_leave_the_fence_where_it_is() -> None:
    assert step([fact(4), fact(5)], {0: 5}) == Step(lanes={0: (5, 5)})


def test_a_signature_withdrawn_in_the_same_batch_adds_nothing_but_was_there() -> None:
    part = step([fact(1), fact(2), fact(3, -1, country="BE")], {0: 0})
    assert (part.delta, part.peak, part.changes) == (1, 2, 3)
    assert part.countries == {"NL": 2, "BE": -1}


def test_a_tally_that_only_falls_reaches_nothing() -> None:
    part = step([fact(1, -1), fact(2, -1), fact(3)], {0: 0})
    assert (part.delta, part.peak) == (-1, 0)


def test_facts_without_any_are_a_step_that_changes_nothing() -> None:
    assert step([], {0: 5}) == Step()


@given(
    expected=st.dictionaries(st.integers(0, 4), st.integers(0, 5)),
    stored=st.dictionaries(st.integers(0, 4), st.integers(0, 5)),
)
def test_redis_lost_state_when_a_fence_is_below_where_it_was_moved(
    expected: dict[int, int], stored: dict[int, int]
) -> None:
    assert lost_state(expected, stored) == any(expected[lane] > stored.get(lane, 0) for lane in expected)


def test_a_fence_that_another_process_moved_on_is_no_loss() -> None:
    assert not lost_state({0: 5}, {0: 9, 1: 3})
    assert not lost_state({}, {})
    assert lost_state({0: 5, 1: 3}, {0: 9})


def test_facts_are_grouped_by_petition_in_their_order() -> None:
    facts = [fact(1), fact(2, petition_id=FERRY), fact(3), fact(1, lane=1)]
    assert by_petition(facts) == {PATH: [facts[0], facts[2], facts[3]], FERRY: [facts[1]]}


def test_the_first_positions_are_the_lowest_of_each_lane() -> None:
    assert first_positions([fact(7), fact(3), fact(9, lane=2), fact(4)]) == {0: 3, 2: 9}
    assert first_positions([]) == {}


def test_a_minute_reads_as_its_beginning_in_utc() -> None:
    assert minute_text(minute_of(NOON.replace(second=59))) == "2026-11-22T12:00Z"
    assert minute_text(0) == "1970-01-01T00:00Z"
