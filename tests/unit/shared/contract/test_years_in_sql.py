"""SQL, Lua and the reasons of dead letters write the first year out; it is the one of `shared.contract.bounds`."""

import re
from pathlib import Path

from shared.contract.bounds import EARLIEST

ROOT = Path(__file__).resolve().parents[4]
YEARS = re.compile(r"'(\d{4})-01-01'|of the year (\d+) or later|(\d{12,13})  -- from the year")


def test_every_lower_bound_of_a_stored_time_is_the_first_one_of_the_contract() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): [year for years in YEARS.findall(path.read_text()) for year in years if year]
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".lua", ".sql"}
    }
    first = {str(EARLIEST.year), str(round(EARLIEST.timestamp() * 1000))}
    later = {"3000"}  # the latest time that notify shows of a row edited by hand
    assert {path: years for path, years in found.items() if not set(years) <= first | later} == {}
    assert sum(map(len, found.values())) >= 8
