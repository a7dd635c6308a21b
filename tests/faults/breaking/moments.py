"""Moments for which a fault waits: a mail, a batch or a connection in progress. The run brings one about if none comes.

A surge has many such moments, but not always when a fault is due: on a busy machine all mails may have been sent by then, or
the surge may be over. So the run has a petition that is signed for such moments. It has a milestone for each of its signatures,
so each passes every point from ingest to the SMTP server. It is checked like all others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tests.faults.fault import NotPlayed
from tests.faults.notes import notes_of
from tests.faults.sending.sender import Sender
from tests.faults.sending.surge import Surge

if TYPE_CHECKING:
    from tests.faults.world import World

MOMENT_SECONDS: Final = 90.0
"""Seconds after which a moment that was provoked repeatedly is given up."""
_BY_ITSELF_SECONDS: Final = 2.0
"""Seconds to wait for a moment of the surge itself, which is better: the fault then hits one of many."""


class Moments:
    """Signs that petition in the background: a fault that hits a signature may also hit its answer."""

    def __init__(self, surge: Surge, sender: Sender) -> None:
        self._surge, self._sender = surge, sender
        self._sending: list[asyncio.Task[str]] = []

    def cause(self) -> None:
        """Send another signature, unless the last one is unanswered."""
        if all(task.done() for task in self._sending):
            self._sending.append(asyncio.create_task(self._sender.send_one(self._surge.next_moment())))

    async def finish(self) -> None:
        """Wait until all of them are accepted: before, the expected count is not known.

        Raises:
            NotAccepted: one is not.
        """
        await asyncio.gather(*self._sending)


async def wait_for_moment(
    world: World,
    what: str,
    there: Callable[[], bool],
    *,
    within: float = MOMENT_SECONDS,
    look: float = 0.02,
) -> None:
    """Wait until `there` returns true: there is something to hit.

    Args:
        what: its name, for the message.
        within: the timeout in seconds.
        look: seconds between two checks.

    Raises:
        NotPlayed: the moment did not come.
    """
    cause = notes_of(world).cause_moment
    ends = time.monotonic() + within
    next_cause = time.monotonic() + _BY_ITSELF_SECONDS
    while not there():
        now = time.monotonic()
        if now > ends:
            raise NotPlayed(f"{what} did not come in {within:g} s")
        if now > next_cause and cause is not None:
            cause()
            next_cause = now + _BY_ITSELF_SECONDS
        await asyncio.sleep(look)
