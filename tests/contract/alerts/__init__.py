"""Cases for every alert: series in which it must fire, and series in which it must not."""

from __future__ import annotations

from typing import Final

from tests.contract.alerts import consumers, counts, services

CASES: Final = (*services.CASES, *consumers.CASES, *counts.CASES)
