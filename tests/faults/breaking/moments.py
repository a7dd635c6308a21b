"""What a fault waits for: a mail under way, a batch in hand, a connection. The run brings it about, if it does not come.

A surge brings every such moment many times, but not always when it is a fault's turn: on a busy machine all mails may have
gone out by then, or the surge may be over. So a petition of the run is there to be signed at such moments. It has a milestone
for each of its signatures, so each passes every point from ingest to the SMTP server. It is checked like all others.
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
"""A moment that has not come by then, however often it was brought about, does not come."""
_BY_ITSELF_SECONDS: Final = 2.0
"""What comes by itself is better: it hits one of many."""


class Moments:
    """Signs the petition that is there for it, in the background: what hits a signature may also hit its answer."""

    def __init__(self, surge: Surge, sender: Sender) -> None:
        self._surge, self._sender = surge, sender
        self._sending: list[asyncio.Task[str]] = []

    def cause(self) -> None:
        """Let another signature be on its way, unless the last one still is."""
        if all(task.done() for task in self._sending):
            self._sending.append(asyncio.create_task(self._sender.send_one(self._surge.next_moment())))

    async def finish(self) -> None:
        """Wait until all of them are accepted: until then it is not known what has to be counted.

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
    """Wait until `there` says that there is something to hit.

    Args:
        what: it is, for the message.
        within: seconds until this is given up.
        look: seconds between two looks.

    Raises:
        NotPlayed: it did not come.
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
