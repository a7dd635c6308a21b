"""The type of mutants, and patching of code that fails when a patch no longer fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy.local.parts.service import ServiceName


class PatchMisfit(Exception):
    """The code that a mutant breaks has changed: the patched place no longer exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One broken protocol.

    Attributes:
        name: on the command line and in the report.
        broken: the rule that is removed.
        service: the service that is patched.
        break_it: patches the service, in its process; None if only the schema is broken.
        points: adds failpoints that the schedule needs and the product does not have. The product gets them too when it
            plays the schedule: they break nothing.
        schema: SQL that breaks the tables; it fails when there is nothing to break.
        spoils_its_world: whether its data are wrong for the product too. Then its world is not used again.
    """

    name: str
    broken: str
    service: ServiceName
    break_it: Callable[[], None] | None = None
    points: Callable[[], None] | None = None
    schema: str | None = None
    spoils_its_world: bool = False


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replace `owner.name` by `wrap` of its present value.

    Raises:
        PatchMisfit: `owner` has no such attribute.
    """
    if name not in vars(owner):
        raise PatchMisfit(f"{getattr(owner, '__name__', owner)} has no {name} any more")
    setattr(owner, name, wrap(vars(owner)[name]))


def without(text: str, part: str) -> str:
    """`text` without `part`, which must be in it exactly once.

    Raises:
        PatchMisfit: it is not.
    """
    if text.count(part) != 1:
        raise PatchMisfit(f"{part!r} is there {text.count(part)} times")
    return text.replace(part, "")
