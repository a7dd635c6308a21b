"""The catalogue: all faults that a run may draw from."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tests.faults.fault import Fault

_MODULES: Final = (
    *(
        "processes",
        "failpoints",
        "network",
        "kafka",
        "redis",
        "postgres",
        "smtp",
        "corrections",
        "records",
        "impossible",
    ),
)


def catalogue() -> dict[str, Fault]:
    """Every fault by its kind.

    Raises:
        ValueError: two faults have the same name.
    """
    found: dict[str, Fault] = {}
    for module in _MODULES:
        for fault in import_module(f"{__name__}.{module}").FAULTS:
            if fault.kind in found:
                raise ValueError(f"two faults are called {fault.kind}")
            found[fault.kind] = fault
    return found
