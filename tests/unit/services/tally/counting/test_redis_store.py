"""What is sent to the Lua scripts and read back; the scripts themselves are tested in tests/integration."""

from datetime import UTC, datetime
from importlib import resources

import pytest

from services.tally.counting import redis_store
from services.tally.counting.step import Step
from services.tally.counting.tally import Applied, NotApplied, Reached, TallyState
from tests.support.signing import NOON, PATH

NOW = 1_795_348_800_000


def test_all_keys_of_a_petition_share_a_cluster_slot() -> None:
    assert redis_store._keys(PATH) == (f"tally:{{{PATH}}}", f"tally:{{{PATH}}}:minutes")


@pytest.mark.parametrize("name", ["apply", "announced", "swap", "read"])
def test_every_script_states_its_keys_and_arguments(name: str) -> None:
    header = (
        resources.files("services.tally.counting").joinpath(f"{name}.lua").read_text(encoding="utf-8").split("\n\n")[0]
    )
    assert "KEYS[1]" in header
    assert "ARGV" in header


def test_a_refusal_tells_the_fences_of_the_lanes() -> None:
    assert redis_store._applied(PATH, [0, 1, 3, 17, 11, 0]) == NotApplied({3: 17, 11: 0})


def test_an_applied_step_tells_the_milestones_that_are_to_be_announced() -> None:
    reply = [1, 1002, 1010, 500, 500, 501, 1_795_348_800_250, 1000, 1002, 1010, 1_795_348_801_000]
    assert redis_store._applied(PATH, reply) == Applied(
        1002,
        1010,
        (
            Reached(PATH, 500, 500, 501, datetime(2026, 11, 22, 12, 0, 0, 250_000, UTC)),
            Reached(PATH, 1000, 1002, 1010, datetime(2026, 11, 22, 12, 0, 1, 0, UTC)),
        ),
    )
    assert redis_store._applied(PATH, [1, 7, 9]) == Applied(7, 9, ())


def test_a_step_goes_out_with_its_thresholds() -> None:
    text = redis_store._encode(Step(lanes={3: (0, 7)}, delta=1, peak=2, changes=3, countries={"NL": 1}), [5, 10])
    assert '"lanes":{"3":[0,7]},"delta":1,"peak":2,"highest":0,"first":false,"changes":3,"countries":{"NL":1}' in text
    assert '"thresholds":[5,10]' in text


@pytest.mark.parametrize("pairs", [["a", "1", "b", "2"], {"a": "1", "b": "2"}])
def test_hashes_are_read_in_both_protocols(pairs: object) -> None:
    assert redis_store._pairs(pairs) == {"a": "1", "b": "2"}


def test_a_rebuilt_state_leaves_out_what_nobody_stands_for() -> None:
    fields = redis_store._fields(
        TallyState(2, 4, {0: 9, 3: 2}, {"NL": 2, "BE": 0}, {29_000_000: 2, 40_000_000: 1}), now=29_000_000
    )
    assert {name: value for name, value in fields.items() if name != "updated_at"} == {
        "count": "2", "revision": "4", "latest": "29000000", "fence:0": "9", "fence:3": "2", "country:NL": "2"
    }  # fmt: skip


def test_a_snapshot_has_the_last_hour_by_minute_and_the_rest_as_earlier() -> None:
    fields = {
        "count": "7",
        "revision": "9",
        "country:NL": "5",
        "country:BE": "2",
        "updated_at": "1795348800000",
        "fence:0": "9",
    }
    found = redis_store._snapshot(PATH, fields, {"29922480": "4", "29922479": "1"}, NOW)
    assert (found.count, found.revision, found.earlier) == (7, 9, 2)
    assert found.countries == {"BE": 2, "NL": 5}
    assert found.minutes == {"2026-11-22T12:00Z": 4, "2026-11-22T11:59Z": 1}
    assert found.updated_at == NOON


def test_a_petition_without_signatures_has_a_snapshot_too() -> None:
    found = redis_store._snapshot(PATH, {}, {}, NOW)
    assert (found.count, found.revision, found.earlier, found.countries, found.minutes) == (0, 0, 0, {}, {})


def test_less_than_nobody_is_never_shown() -> None:
    # A withdrawal in one lane can be counted before its signature in another, once partitions were added.
    assert redis_store._snapshot(PATH, {"count": "-1", "revision": "1"}, {}, NOW).count == 0
