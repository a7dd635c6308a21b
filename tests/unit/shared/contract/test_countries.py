"""Which countries there are is part of the rules: another version of the library must not change it unseen."""

import hashlib

import pycountry

from shared.contract.countries import COUNTRIES

AS_OF_2026_02 = "80e6ff8314a7161ad6346b0aac6cbddef9f786fe4c3fb23d481fab24320e7130"


def test_codes_and_names_are_those_that_were_looked_at() -> None:
    text = "\n".join(f"{code} {name}" for code, name in sorted(COUNTRIES.items()))
    found = hashlib.sha256(text.encode()).hexdigest()
    assert found == AS_OF_2026_02, f"look at what pycountry {pycountry.__version__} changes, and say it in CHANGELOG.md"


def test_codes_that_are_not_officially_assigned_are_no_countries() -> None:
    assert not {"UK", "EL", "XK", "EU", "AC", "TA", "ZZ"} & COUNTRIES.keys()
    assert len(COUNTRIES) == 249
