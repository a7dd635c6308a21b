"""Classification of errors. There are four kinds:

* **invalid** input: `InvalidRecord`; the record becomes a dead letter, the rest of the batch is processed;
* **transient**: a dependency of this process is away or busy; hold the position and retry. A `Collision` is transient only
  for a number of tries;
* **about the data**: a store refuses something in the batch, and will refuse it again. `SetAside` names the records; for
  other errors (`is_about_the_data`) the consumer finds them by splitting the batch. They become dead letters;
* **bug**: everything else; end the process and commit nothing.

The errors of a driver are classified where the driver is used: that module has a `DriverErrors` named ``ERRORS``.
`_DECIDED_IN` names the module. It is imported when an error of its driver is first classified, so that no module has to
register itself, and Kafka's code does not depend on PostgreSQL's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final


class InvalidRecord(ValueError):
    """A record is invalid, and no retry helps.

    ``reason`` is a short code for headers and metrics; ``detail`` says where the record is wrong, without its content.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SetAside(Exception):
    """Some records of a batch can be read but not applied. `process` raises it if it knows which.

    Nothing of the batch needs to have been done. The consumer writes these records to the dead-letter topic and calls
    `process` again with the others.

    Args:
        refused: Why each record cannot be applied, by its index in the batch that `process` received.
    """

    def __init__(self, refused: Mapping[int, InvalidRecord]) -> None:
        if not refused:
            raise ValueError("SetAside without a record would be raised for ever")
        super().__init__(f"{len(refused)} records cannot be applied")
        self.refused = dict(refused)


class Collision(ConnectionError):
    """Another process wrote what this process tried to write. Transient, and expected to end within a few tries.

    If it does not, the cause is in the data: the consumer then splits the batch, as for `is_about_the_data`.
    """


CANNOT_BE_APPLIED: Final = "cannot_be_applied"
"""Reason of a dead letter: the record can be read, but a store refuses it every time."""

CANNOT_BE_READ: Final = "cannot_be_read"
"""Reason of a dead letter: reading the record raises an unexpected error, which is a bug of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverErrors:
    """Classifies the errors of one driver."""

    is_transient: Callable[[BaseException], bool]
    """Whether a retry can help."""
    is_about_the_data: Callable[[BaseException], bool] = lambda _: False
    """Whether a store refuses something in the batch, so that only leaving it out can help."""
    details: Callable[[BaseException], list[str]] = lambda _: []
    """Details of an error besides its type, without any value of the data."""
    why: Callable[[BaseException], str | None] = lambda _: None
    """Why the server cannot be used, in words that may be shown; None if the error's type says as much."""


_DECIDED_IN: Final = {"aiokafka": "shared.kafka.failures", "asyncpg": "shared.postgres", "redis": "shared.redis"}
"""The module that classifies a driver's errors, by the driver's package. An error of any other package is a bug, unless it
is an `OSError`."""


def errors_of_driver(error: BaseException) -> DriverErrors | None:
    """Return what classifies `error`, if it comes from a driver; our own exceptions count as what they are derived from."""
    for cls in type(error).__mro__:
        module = _DECIDED_IN.get(cls.__module__.partition(".")[0])
        if module is not None:
            errors: DriverErrors = import_module(module).ERRORS
            return errors
    return None


def is_transient(error: BaseException) -> bool:
    """Return whether a retry can help: the network, Kafka, PostgreSQL or Redis is away, busy, full, or changing its
    leader."""
    if isinstance(error, asyncio.CancelledError):
        return False
    driver = errors_of_driver(error)
    if driver is not None:
        return driver.is_transient(error)
    # An error about a file is not transient: it does not concern a connection.
    return isinstance(error, OSError) and error.filename is None


def is_about_the_data(error: BaseException) -> bool:
    """Return whether a store refuses something in the batch, so that only leaving it out can help."""
    driver = errors_of_driver(error)
    return driver is not None and driver.is_about_the_data(error)


def without_content(error: BaseException) -> str:
    """Describe an error by its type and details, without any value: messages of drivers repeat values of the data."""
    parts = [type(error).__name__]
    if isinstance(error, Collision):
        parts.append(str(error))  # our own message, which never has content
    elif (driver := errors_of_driver(error)) is not None:
        parts += driver.details(error)
    return ", ".join(parts)
