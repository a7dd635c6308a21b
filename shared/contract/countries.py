"""Countries by ISO 3166-1 alpha-2 code, with the English names that the form shows. The codes are pycountry's.

The set of codes decides which signatures count, so pycountry is pinned to one version, and
tests/unit/shared/contract/test_countries.py fails if another version adds or drops a code or renames a country.
"""

from __future__ import annotations

from typing import Final

import pycountry

_OTHER_NAMES: Final = {
    "CD": "Congo (Democratic Republic)",
    "FK": "Falkland Islands",
    "FM": "Micronesia",
    "KP": "Korea (North)",
    "KR": "Korea (South)",
    "PS": "Palestine",
    "RU": "Russia",
    "VA": "Holy See",
    "VG": "Virgin Islands (British)",
    "VI": "Virgin Islands (U.S.)",
    "VN": "Viet Nam",
}
"""The form's names of countries where it uses neither pycountry's common name nor its name."""

COUNTRIES: Final[dict[str, str]] = {
    country.alpha_2: getattr(country, "common_name", country.name) for country in pycountry.countries
} | _OTHER_NAMES
