"""Figures, their goals, and the document that holds them."""

import json

from tests.bench.clients.load import parsed
from tests.bench.results.figures import Result, at_least, at_most, at_most_times, figure, times_less, times_more


def test_the_figure_of_several_rounds_is_their_median_with_its_spread() -> None:
    made = figure("drain.rate", [11_000.0, 14_000.0, 13_000.0], "1/s", at_least(12_000, "/s"))
    assert (made.value, made.spread, made.passes) == (13_000, (11_000, 14_000), True)


def test_a_bound_holds_on_the_bound_and_not_beyond() -> None:
    assert figure("a", [50.0], "ms", at_most(50, "ms")).passes is True
    assert figure("a", [50.1], "ms", at_most(50, "ms")).passes is False


def test_ratios_read_in_the_direction_of_their_goal() -> None:
    floor = figure("accept.cpu", [120.0], "µs", at_most_times(1.3, "the floor"), peer="floor", peer_values=[100.0])
    assert (floor.ratio, floor.passes) == (1.2, True)
    peer = figure("accept.cpu", [120.0], "µs", times_less(2.3, "peer"), peer="fastapi", peer_values=[240.0])
    assert (peer.ratio, peer.passes) == (2.0, False)
    faster = figure("road.rate", [1000.0], "1/s", times_more(5, "peer"), peer="fastapi", peer_values=[100.0])
    assert (faster.ratio, faster.passes) == (10.0, True)


def test_a_goal_about_a_peer_that_was_not_measured_is_open() -> None:
    assert figure("accept.cpu", [120.0], "µs", times_less(2.3, "peer")).passes is None


def test_the_document_holds_machine_commit_and_figures() -> None:
    result = Result({"cores": 2}, "abc", [figure("a", [1.0], "ms", at_most(2, "ms"), peer="b", peer_values=[4.0])])
    document = json.loads(result.as_json())
    assert document["machine"] == {"cores": 2}
    assert document["commit"] == "abc"
    (only,) = document["figures"]
    assert {"name", "value", "unit", "goal", "peer", "peer_value", "ratio", "pass"} <= only.keys()
    assert (only["pass"], only["ratio"], only["goal"]) == (True, 0.25, "≤ 2 ms")


def test_what_wrk_prints_is_read_in_seconds_and_milliseconds() -> None:
    output = (
        "Running 1s test\n"
        'RESULT {"requests":1000,"microseconds":2000000,"bytes":5,"p50":1500,"p90":2000,"p99":9000,"p999":1,"most":2,'
        '"mean":1.0,"connect":0,"read":1,"write":0,"status":100,"timeout":0,"behind_ms":0.2,"cpu_seconds":0.5}\n'
    )
    seen = parsed(0, output)
    assert (seen.accepted, seen.rate, seen.p50_ms, seen.p99_ms, seen.broken) == (900, 450, 1.5, 9.0, 1)
