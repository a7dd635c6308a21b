"""What a mutant is, and how code is patched so that a patch that no longer fits is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy.local.parts.service import ServiceName


class PatchMisfit(Exception):
    """The code that a mutant breaks has changed: what it would patch is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One broken protocol.

    Attributes:
        name: on the command line and in the report.
        broken: what is taken out of the protocol.
        service: the service that is patched.
        break_it: patches the service, in its process; None where the schema is what is broken.
        points: puts failpoints into the service where the product has none and the schedule needs one. The product has
            them too when it plays the schedule: with them alone it is whole.
        schema: SQL that breaks the tables; it fails when there is nothing to break.
        spoils_its_world: whether what it leaves behind is wrong for the product too. Nobody plays there after it.
    """

    name: str
    broken: str
    service: ServiceName
    break_it: Callable[[], None] | None = None
    points: Callable[[], None] | None = None
    schema: str | None = None
    spoils_its_world: bool = False


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Put `wrap(what is there)` in the place of `owner.name`.

    Raises:
        PatchMisfit: `owner` has nothing of that name.
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
