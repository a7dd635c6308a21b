"""What a failure means. Four kinds, everywhere:

* **invalid** input: `InvalidRecord`; the record goes to the dead-letter topic, the rest of the batch goes on;
* **transient**: something this process depends on is away or busy; hold the position and try again. A `Collision` is
  transient only for a number of tries;
* **about the data**: a store refuses what is in the batch, and will refuse it again. `SetAside` names the records; for
  other errors (`is_about_the_data`) the consumer finds them by splitting the batch. They go to the dead-letter topic;
* **bug**: everything else; crash loudly, commit nothing.

What the errors of a driver mean is decided where the driver is used: that module has a `DriverErrors` named ``ERRORS``.
`_DECIDED_IN` says which module. It is imported when an error of its driver is first judged, so no part has to register
itself, and Kafka's part of the code needs none of PostgreSQL's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final


class InvalidRecord(ValueError):
    """A record that no retry will make readable.

    ``reason`` is a short code for headers and metrics; ``detail`` says where the record is wrong, without its content.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SetAside(Exception):
    """Records of a batch that can be read and cannot be applied. `process` raises it when it knows which they are.

    Nothing of the batch needs to be done yet. The consumer writes these records to the dead-letter topic and calls
    `process` again with the others.

    Args:
        refused: By the record's index in the batch that `process` was given, why it cannot be applied.
    """

    def __init__(self, refused: Mapping[int, InvalidRecord]) -> None:
        if not refused:
            raise ValueError("SetAside without a record would be raised for ever")
        super().__init__(f"{len(refused)} records cannot be applied")
        self.refused = dict(refused)


class Collision(ConnectionError):
    """A rival wrote what this process wanted to write. Transient, and expected to pass within a few tries.

    When it does not, the cause is in the data: the consumer then splits the batch, as for `is_about_the_data`.
    """


CANNOT_BE_APPLIED: Final = "cannot_be_applied"
"""Reason of a dead letter: the record can be read, and a store refuses it each time."""

CANNOT_BE_READ: Final = "cannot_be_read"
"""Reason of a dead letter: reading the record raises an unexpected error, which is a bug of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverErrors:
    """What the errors of one driver mean."""

    is_transient: Callable[[BaseException], bool]
    """Whether waiting can help."""
    is_about_the_data: Callable[[BaseException], bool] = lambda _: False
    """Whether a store refuses something in the batch, so that waiting cannot help and leaving it out can."""
    details: Callable[[BaseException], list[str]] = lambda _: []
    """What an error is about, besides its type, without any value of the data."""
    why: Callable[[BaseException], str | None] = lambda _: None
    """Why the server cannot be worked with, in words that may be shown; None where the error's type says as much."""


_DECIDED_IN: Final = {"aiokafka": "shared.kafka.failures", "asyncpg": "shared.postgres", "redis": "shared.redis"}
"""By the driver's package, the module that decides what its errors mean. An error of any other package is a bug, unless it
is an `OSError`."""


def errors_of_driver(error: BaseException) -> DriverErrors | None:
    """What decides about `error`, if it comes from a driver; an exception of ours counts as what it is derived from."""
    for cls in type(error).__mro__:
        module = _DECIDED_IN.get(cls.__module__.partition(".")[0])
        if module is not None:
            errors: DriverErrors = import_module(module).ERRORS
            return errors
    return None


def is_transient(error: BaseException) -> bool:
    """Whether waiting can help: the network, Kafka, PostgreSQL or Redis is away, busy, full, or changing its leader."""
    if isinstance(error, asyncio.CancelledError):
        return False
    driver = errors_of_driver(error)
    if driver is not None:
        return driver.is_transient(error)
    # An error about a file is not about a connection: waiting makes no file appear.
    return isinstance(error, OSError) and error.filename is None


def is_about_the_data(error: BaseException) -> bool:
    """Whether a store refuses something in the batch, so that waiting cannot help and leaving it out can."""
    driver = errors_of_driver(error)
    return driver is not None and driver.is_about_the_data(error)


def without_content(error: BaseException) -> str:
    """What kind of error it is and what it is about, without any value: messages of drivers repeat values of the data."""
    parts = [type(error).__name__]
    if isinstance(error, Collision):
        parts.append(str(error))  # ours, and made without content
    elif (driver := errors_of_driver(error)) is not None:
        parts += driver.details(error)
    return ", ".join(parts)
