"""Costs are figures of the benchmark, in their unit, or their previous values, or null."""

from datetime import date

import pytest

from deploy.capacity.costs import COSTS, nothing_measured
from tests.bench.results.costs import FIGURES, WrongUnit, taken_over

DAY = date(2026, 1, 2)


def results(*figures: tuple[str, float, str], processor: str = "of a test") -> dict[str, object]:
    return {
        "machine": {"processor": processor},
        "commit": "1a2b3c4",
        "figures": [{"name": name, "value": value, "unit": unit} for name, value, unit in figures],
    }


def test_every_cost_has_its_figure() -> None:
    assert set(FIGURES) | {"postgres_rows"} == set(COSTS)
    for name, figure in FIGURES.items():
        assert figure.startswith(f"{COSTS[name].source}."), "the source is the figure's scenario"


def test_figures_are_taken_over_and_the_rest_is_null() -> None:
    costs = taken_over(results(("drain.cpu.verify", 52.5, "µs")), DAY, nothing_measured())
    verify = costs.costs["verify_cpu"]
    assert (verify.value, verify.date, verify.commit) == (52.5, DAY, "1a2b3c4")
    assert len(costs.not_measured) == len(COSTS) - 1


def test_of_several_sizes_the_largest_is_taken() -> None:
    measured = results(
        ("growth.cpu.postgres.10000", 30.0, "µs"),
        ("growth.cpu.postgres.5000000", 36.0, "µs"),
        ("growth.cpu.postgres.100000", 31.0, "µs"),
    )
    costs = taken_over(measured, DAY, nothing_measured())
    assert costs.value("postgres_cpu") == 36
    assert costs.value("postgres_rows") == 5_000_000


def test_what_is_not_measured_again_stays_if_it_was_the_same_machine() -> None:
    first = taken_over(results(("tally.cpu.hot", 6.0, "µs")), DAY, nothing_measured())
    again = results(("drain.cpu.verify", 50.0, "µs"))
    later = taken_over(again, date(2026, 2, 3), first)
    assert later.value("tally_cpu") == 6
    assert later.costs["tally_cpu"].date == DAY
    assert later.costs["verify_cpu"].date == date(2026, 2, 3)
    other = taken_over({**again, "machine": {"processor": "another"}}, DAY, first)
    assert other.value("tally_cpu") is None


def test_another_unit_is_refused() -> None:
    with pytest.raises(WrongUnit, match=r"drain\.cpu\.verify is in ms"):
        taken_over(results(("drain.cpu.verify", 0.05, "ms")), DAY, nothing_measured())
