"""Nine protocols that are broken on purpose: the harness must detect each of them, or it proves nothing.

A mutant removes one rule of the protocol. It is the product itself, started by its own ``main``, with a function or a
statement patched in the service's process (`run`); the product's code has no support for it. Each mutant has a schedule of
faults that needs the missing rule (`directed`). ``python -m tests.faults.mutants`` plays it against the product, which must
pass, and against the mutant, which must fail, for the expected reason.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tests.faults.mutants.mutant import Mutant

_MODULES: Final = (
    "no_fence",
    "committed_first",
    "no_lane_key",
    "redis_unnoticed",
    "milestone_cleared",
    "check_then_insert",
    "not_split",
    "not_taken_back",
    "key_unchecked",
)


def mutants() -> dict[str, Mutant]:
    """All mutants by name."""
    found: list[Mutant] = [import_module(f"{__name__}.{module}").MUTANT for module in _MODULES]
    return {mutant.name: mutant for mutant in found}
