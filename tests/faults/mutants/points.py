"""The mutants' own failpoints, at places where the product has none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.faults.breaking.failpoints import Failpoints

POSITIONS_READ: Final = "mutants.positions_read"
"""A batch's positions are computed from the lanes' last ones; nothing is appended to the ledger yet."""

SIGNERS_CHECKED: Final = "mutants.signers_checked"
"""A batch's signatures are about to be inserted; the mutant has already checked for signers that stand."""


class OwnPoints(Failpoints):
    """Arms these points, in the services' directory of failpoints."""

    def _file(self, name: str, service: str | None) -> Path:
        if name not in (POSITIONS_READ, SIGNERS_CHECKED):
            raise KeyError(f"mutants have no failpoint {name}")
        return self.directory / (name if service is None else f"{name}@{service}")
