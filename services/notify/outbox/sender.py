"""The sender: claims due mails and sends them to the SMTP server, one after the other.

Effects of a crash at each step
-------------------------------
* choosing and claiming: one transaction; before its commit nothing is held, after it the lease expires and another sender
  takes the mail over, with the same Message-ID and the same milestones;
* connecting, and a mail up to the end of its content: the server has accepted nothing; as above;
* **between the server's 250 and the row's ``sent``: the mail is sent and the table does not know it.** It is sent again
  when the lease has expired. SMTP has no transaction that could close this window. Instead the copy is recognisable (same
  Message-ID, same bytes; many servers drop it) and the window short: the row is written right after the reply, and while
  PostgreSQL is away the sender only retries that write. A 250 that is lost on the way opens the same window;
* after ``sent``: nothing is left to do.

Each mail is checked before it is sent: tally decided the milestones that it names, the row's id is derived from its fields
(`claiming`), and the petition addresses the target; the address is the one in the catalogue now. A delivery that fails a
check is stored as failed, "not sent: …". Mails of unknown petitions wait until the petition is known.

Nothing is lost at any step: a row leaves ``pending`` and ``sending`` only by a server's final reply, or when the mail has
been deferred for longer than the time to give up. A delivery that failed for its address is due again with another one
(`requeue`).

While the SMTP server is away, nothing is claimed, so deliveries spend no attempts; the sender waits and tries again. A
connection that breaks in the middle of a mail defers that mail like a 4xx: the mail itself may be the cause, and must not
block the others. An unexpected exception, which is a bug, defers its mail too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog

from services.notify.mail.letter import MailWriter
from services.notify.mail.smtp import SmtpRelay
from services.notify.metrics import NotifyMetrics
from services.notify.outbox.delivering import MailDelivery, hold
from services.notify.outbox.rules import Withheld
from services.notify.outbox.store import DeliveryStore
from services.notify.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.runtime.backoff import Backoff, jittered
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

_AWAY: Final = Backoff(0.5, 30.0)
"""Waits while the SMTP server or PostgreSQL is away: at most half a minute, so that mail flows soon after its return."""

_FRESH_SECONDS = 2.0
"""How long the catalogue counts as up to date: reading it to its end takes a tenth of a second, like many mails."""


class Sender:
    """Sends mails until `stop`. Senders in several processes share the work.

    Args:
        store: The deliveries.
        relay: The SMTP server.
        writer: Writes the mails.
        catalogue: The petitions with their targets.
        catch_up: Reads the catalogue up to now, or raises a transient error.
        settings: Leases, retries.
        metrics: The metrics of notify.
    """

    def __init__(
        self,
        *,
        store: DeliveryStore,
        relay: SmtpRelay,
        writer: MailWriter,
        catalogue: Catalogue,
        catch_up: Callable[[], Awaitable[None]],
        settings: Settings,
        metrics: NotifyMetrics,
    ) -> None:
        self._store, self._relay, self._metrics = store, relay, metrics
        self._catalogue, self._catch_up = catalogue, catch_up
        self._caught_up_at: float | None = None
        self._settings = settings
        self._mails = MailDelivery(
            store=store, relay=relay, writer=writer, catalogue=catalogue, settings=settings, metrics=metrics
        )
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    def stop(self) -> None:
        """Finish the mail in hand, give back the others, and end."""
        self._stopping.set()

    async def ended(self, within: float) -> bool:
        """Wait until `run` has ended, at most `within` seconds. Returns whether it has."""
        try:
            async with asyncio.timeout(within):
                await self._ended.wait()
        except TimeoutError:
            log.warning("mail_outlived_stop", seconds=within)
            return False
        return True

    async def run(self) -> None:
        """Send what is due until stopped.

        Raises:
            Exception: a bug. Another sender takes over its mails once their lease has expired.
        """
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    sent_any = await self._pass()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    failures += 1
                    wait = jittered(_AWAY.after(failures))
                    hold(self._metrics, error, wait)
                    await self._pause(wait)
                else:
                    failures = 0
                    self._metrics.held.set(0)
                    if not sent_any:
                        await self._pause(self._settings.poll_seconds)
        finally:
            self._ended.set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass  # the pause is over

    # ------------------------------------------------------------------------------------------------------- one pass

    async def _pass(self) -> bool:
        """Connect, claim, send. Returns whether there was anything to send."""
        unknown = [name for name in await self._store.open_petitions() if self._catalogue.published(name) is None]
        if not await self._store.anything_due(unknown):
            return False
        await self._know_the_addresses()
        # Connect before claiming: deliveries that become due while the server is away can still be folded into a later mail.
        async with self._relay.session() as session:
            lease, stuck = uuid4(), []
            ends = time.monotonic() + self._settings.lease_seconds  # read before the claim, so never too late
            try:
                claimed = await self._store.claim(
                    limit=self._settings.claim_batch,
                    lease=lease,
                    lease_for=timedelta(seconds=self._settings.lease_seconds),
                    without=unknown,
                )
                for withheld in claimed.withheld:
                    self._forged(withheld)
                await failpoint("notify.claimed")
                for claim in claimed.mails:
                    if self._stopping.is_set() or time.monotonic() + self._settings.smtp_timeout_seconds > ends:
                        break
                    if not await self._mails.deliver(session, claim, lease):
                        stuck.append(claim.delivery.delivery_id)
            except Exception as error:
                # Also after a claim whose commit was not confirmed. Not after a bug: the lease keeps other senders from
                # meeting it at once.
                if is_transient(error):
                    await self._give_back(lease, stuck)
                raise
            await self._give_back(lease, stuck)
        return bool(claimed.mails or claimed.withheld)

    async def _know_the_addresses(self) -> None:
        """Read the catalogue up to now, unless done a moment ago: a target may have another address, or be removed.

        Raises:
            CatalogueBehind: that takes too long; mail waits for it.
        """
        now = time.monotonic()
        if self._caught_up_at is None or now - self._caught_up_at > _FRESH_SECONDS:
            await self._catch_up()
            self._caught_up_at = now

    async def _give_back(self, lease: UUID, stuck: list[UUID]) -> None:
        """Give back untried mails to all senders; if PostgreSQL is away, this happens when the lease expires."""
        try:
            await self._store.give_back(lease, keep=stuck)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("lease_not_given_back", cause=type(error).__name__, seconds=self._settings.lease_seconds)

    def _forged(self, withheld: Withheld) -> None:
        self._metrics.finished.labels(outcome="forged").inc()
        log.error("mail_forged", **withheld.named())
