"""Faults of the SMTP server. Mails are rare, so these faults wait for one to hit."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from random import Random
from typing import TYPE_CHECKING, Final

from tests.faults.breaking.moments import wait_for_moment
from tests.faults.breaking.smtp_sink import Trouble
from tests.faults.fault import Fault
from tests.support.scripted_smtp import Stage

if TYPE_CHECKING:
    from tests.faults.world import World

_SMTP: Final = frozenset({"smtp"})
_STAGES: Final[tuple[Stage, ...]] = ("MAIL", "RCPT", "DATA")


async def _deferred(world: World, random: Random) -> None:
    """4xx to every mail, at one of the three stages of a mail."""
    stage = random.choice(_STAGES)
    await _until_hit(f"smtp puts mails off at {stage}", world.smtp.deferring(stage), world, random)


async def _refused_for_good(world: World, random: Random) -> None:
    """5xx to one recipient, after the content: the server knows which mails will be missing."""
    await _until_hit("smtp refuses one recipient", world.smtp.refusing_one_recipient(), world, random)


async def _dropped(world: World, random: Random) -> None:
    """The server takes the content and cuts the connection before the 250: the window that SMTP cannot close."""
    await _until_hit("smtp takes mails and says nothing", world.smtp.dropping(), world, random)


async def _slow(world: World, random: Random) -> None:
    """Slow, but within notify's two seconds, which cover the three answers of a mail."""
    seconds = random.uniform(0.1, 0.5)
    await _until_hit(f"smtp waits {seconds:.1f} s", world.smtp.slow(seconds), world, random)


async def _too_late(world: World, random: Random) -> None:
    """The server takes the content and sends the 250 after notify's timeout."""
    seconds = random.uniform(2.2, 4.0)
    await _until_hit(f"smtp answers content after {seconds:.1f} s", world.smtp.slow(seconds, "DATA"), world, random)


async def _until_hit(what: str, behaviour: AbstractContextManager[Trouble], world: World, random: Random) -> None:
    longer = random.uniform(0.5, 3.0)
    with behaviour as trouble:
        world.timeline.note(what)
        await wait_for_moment(world, "a mail", lambda: trouble.hits > 0)
        await asyncio.sleep(longer)
    world.timeline.note("smtp is itself again", hits=trouble.hits, recipient=trouble.recipient)


FAULTS: Final = (
    Fault("smtp-deferring", _SMTP, _deferred),
    Fault("smtp-refusing-a-recipient", _SMTP, _refused_for_good),
    Fault("smtp-accepting-then-dropping", _SMTP, _dropped),
    Fault("smtp-answering-slowly", _SMTP, _slow),
    Fault("smtp-answering-too-late", _SMTP, _too_late),
)
