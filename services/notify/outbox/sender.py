"""The sender: takes mails that are due and hands them to the SMTP server, one after the other.

What a crash does, step by step
-------------------------------
* choosing and claiming: one transaction; before its commit nothing is held, after it the lease runs out and another
  sender takes the mail over, with the same Message-ID and the same milestones;
* connecting, and a mail up to the end of its content: the server has taken nothing; as above;
* **between the server's 250 and the row's ``sent``: the mail is out and the table does not know it.** It is sent again
  when the lease has run out. SMTP has no transaction that could close this window; what is done instead is to make the
  copy recognisable (same Message-ID, same bytes; many servers drop it) and the window short: the row is written right
  after the reply, and while PostgreSQL is away the sender does nothing else than try to write it. A server that takes the
  mail but whose 250 is lost on the way is the same window;
* after ``sent``: nothing is left to do.

Before a mail leaves the house, it is checked: tally decided the milestones that it names and the row's id is that of its
fields (`claiming`), and the petition addresses the target, at the address that it has in the catalogue now. What fails a
check is stored as failed, "not sent: …". Mails of petitions that are not known are left alone until they are.

Nothing is lost at any step: a row leaves ``pending`` and ``sending`` only by a server's final answer, or when servers have
put the mail off for longer than the time to give up. What failed for its address is due again at another (`requeue`).

While the SMTP server is away, nothing is claimed, so no delivery spends attempts on that; the sender waits and looks
again. A connection that breaks in the middle of a mail puts that mail off like a 4xx, because the mail itself may be what
breaks it, and the others must get past it. So does an exception that nobody expects: it is a bug, and costs its mail.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID, uuid4

import structlog

from services.notify.deliveries import (
    NO_TARGET,
    Claim,
    Reply,
    RetryRule,
    Stage,
    Verdict,
    Withheld,
    address_of,
    verdict,
)
from services.notify.mail.letter import MailWriter, Unmailable
from services.notify.mail.refusals import Cause, cause_of
from services.notify.mail.smtp import MailCut, SmtpRelay, SmtpSession
from services.notify.metrics import NotifyMetrics
from services.notify.outbox.store import DeliveryStore
from services.notify.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.runtime.backoff import Backoff, jittered
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

T = TypeVar("T")

_AWAY: Final = Backoff(0.5, 30.0)
"""Waits while the SMTP server or PostgreSQL is away: half a minute at most, so that mail flows soon after its return."""

_RECORDING: Final = Backoff(0.1, 2.0)
"""Waits between tries to write down a server's answer. Short: until it is written, a crash would send the mail again."""


_FRESH_SECONDS = 2.0
"""How long the catalogue counts as up to date: reading it to its end takes a tenth of a second, as long as many mails."""


class Sender:
    """Runs until `stop`; several in several processes share the work.

    Args:
        store: The deliveries.
        relay: The SMTP server.
        writer: Writes the mails.
        catalogue: Who is addressed, and where.
        catch_up: Reads the catalogue up to now, or raises an error that waiting can help.
        settings: Leases, retries.
        metrics: Where to count.
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
        self._store, self._relay, self._writer, self._metrics = store, relay, writer, metrics
        self._catalogue, self._catch_up = catalogue, catch_up
        self._caught_up_at: float | None = None
        self._settings = settings
        self._retry = RetryRule(
            first=timedelta(seconds=settings.retry_first_seconds),
            most=timedelta(seconds=settings.retry_most_seconds),
            give_up_after=timedelta(days=settings.give_up_days),
        )
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    def stop(self) -> None:
        """Finish the mail in hand, give back the others, and end."""
        self._stopping.set()

    async def ended(self, within: float) -> bool:
        """Wait until `run` has ended, at most `within` seconds. Whether it has."""
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
            Exception: a bug. What was held is taken over by another sender once the lease has run out.
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
                    self._hold(error, wait)
                    await self._pause(wait)
                else:
                    failures = 0
                    self._metrics.held.set(0)
                    if not sent_any:
                        await self._pause(self._settings.poll_seconds)
        finally:
            self._ended.set()

    def _hold(self, error: Exception, wait: float) -> None:
        self._metrics.held.set(1)
        self._metrics.holds.labels(cause=type(error).__name__).inc()
        # The text of `SmtpAway` is written for logs; PostgreSQL's may quote values.
        reason = str(error) if isinstance(error, ConnectionError) else type(error).__name__
        log.warning("sender_held", cause=type(error).__name__, reason=reason, wait=round(wait, 2))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass  # the pause is over

    # ------------------------------------------------------------------------------------------------------- one pass

    async def _pass(self) -> bool:
        """Connect, claim, send. Whether there was anything to send."""
        unknown = [name for name in await self._store.open_petitions() if self._catalogue.published(name) is None]
        if not await self._store.anything_due(unknown):
            return False
        await self._know_the_addresses()
        # Connected first, claimed then: what is due while the server is away stays free to be folded into a later mail.
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
                    if not await self._deliver_or_keep(session, claim, lease):
                        stuck.append(claim.delivery.delivery_id)
            except Exception as error:
                # Also after a claim whose commit nobody confirmed. Not after a bug: the lease keeps others from running
                # into it at once.
                if is_transient(error):
                    await self._give_back(lease, stuck)
                raise
            await self._give_back(lease, stuck)
        return bool(claimed.mails or claimed.withheld)

    async def _know_the_addresses(self) -> None:
        """Read the catalogue up to now, if it was not done a moment ago: a target may have another address, or be gone.

        Raises:
            CatalogueBehind: that takes too long; mail waits for it.
        """
        now = time.monotonic()
        if self._caught_up_at is None or now - self._caught_up_at > _FRESH_SECONDS:
            await self._catch_up()
            self._caught_up_at = now

    async def _give_back(self, lease: UUID, stuck: list[UUID]) -> None:
        """What was not tried is due at once for anybody. If PostgreSQL is away: when the lease has run out."""
        try:
            await self._store.give_back(lease, keep=stuck)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("lease_not_given_back", cause=type(error).__name__, seconds=self._settings.lease_seconds)

    async def _deliver_or_keep(self, session: SmtpSession, claim: Claim, lease: UUID) -> bool:
        """Deliver a mail. Whether what became of it is written down, or it may be given back.

        False after an exception that nobody expects: the server may have taken the mail, so it stays under its lease, which
        doubles each time. Given back, it would go out again at once.

        Raises:
            Exception: one that waiting can help.
        """
        try:
            await self._deliver(session, claim, lease)
        except Exception as error:
            if is_transient(error):
                raise
            self._bug(claim, error)
            return False
        return True

    async def _deliver(self, session: SmtpSession, found: Claim, lease: UUID) -> None:
        """Check one mail, send it, and write down what became of it.

        Raises:
            SmtpAway: the server takes nothing from us; this mail and the rest stay to be sent.
        """
        claim = await self._addressed(found, lease)
        if claim is None:
            return
        if claim.taken_over:
            self._metrics.leases_expired.inc()
            log.warning("mail_taken_over", **_named(claim))
        started = time.perf_counter()
        try:
            reply = await session.send(self._writer.write(claim))
        except Unmailable as reason:
            await self._fail(claim, lease, str(reason), Cause.ADDRESS)
            return
        except MailCut as cut:
            self._metrics.replies.labels("cut").inc()
            await self._defer(claim, lease, str(cut), maybe_taken=cut.stage is Stage.CONTENT)
            return
        except Exception as error:
            if is_transient(error):
                raise
            self._bug(claim, error)
            await self._defer(claim, lease, f"a bug of this version: {type(error).__name__}", maybe_taken=True)
            return
        self._metrics.smtp_seconds.observe(time.perf_counter() - started)
        self._metrics.replies.labels(f"{reply.code // 100}xx" if 200 <= reply.code < 600 else "other").inc()
        match verdict(reply):
            case Verdict.SENT:
                await failpoint("notify.accepted")
                await self._sent(claim, reply)
            case Verdict.DEFERRED:
                await self._defer(claim, lease, str(reply), reply=reply)
            case Verdict.REFUSED:
                await self._fail(claim, lease, str(reply), cause_of(reply), code=reply.code)
            case Verdict.NOT_OURS:
                raise self._relay.refused(reply)

    async def _addressed(self, claim: Claim, lease: UUID) -> Claim | None:
        """The mail, to the address that its target has now; None if it is not to be sent, or not now."""
        petition = self._catalogue.published(claim.delivery.petition_id)
        if petition is None:
            return None  # deleted, or unpublished, a moment ago; the mail is given back, and waits for the petition
        target = next((one for one in petition.targets if one.target_id == claim.delivery.target_id), None)
        if target is None:
            await self._fail(claim, lease, NO_TARGET, Cause.TARGET)
            return None
        email = address_of(target)
        if email == claim.delivery.email:
            return claim
        if not await self._surely(lambda: self._store.readdressed(claim.delivery.delivery_id, lease, email)):
            return None  # another sender has it by now
        self._metrics.readdressed.inc()
        log.warning("mail_readdressed", **_named(claim))
        return replace(claim, delivery=replace(claim.delivery, email=email))

    # ---------------------------------------------------------------------------------------------- what became of it

    async def _sent(self, claim: Claim, reply: Reply) -> None:
        await self._surely(lambda: self._store.sent(claim.delivery.delivery_id, str(reply), claim.delivery.email))
        self._finished("sent", claim)
        self._metrics.age_seconds.observe(max(0.0, (datetime.now(UTC) - claim.delivery.reached_at).total_seconds()))
        log.info("mail_sent", code=reply.code, **_named(claim))

    async def _defer(
        self, claim: Claim, lease: UUID, words: str, *, reply: Reply | None = None, maybe_taken: bool = False
    ) -> None:
        code = None if reply is None else reply.code
        if self._retry.gives_up(claim.deferred_for):
            cause = Cause.SERVER if reply is None else cause_of(reply)
            words = f"given up after {claim.deferred_for.days} days; last: {words}"
            await self._fail(claim, lease, words, cause, code=code, maybe_taken=maybe_taken)
            return
        delay = self._retry.delay(claim.attempts + 1, random.random())  # noqa: S311  jitter, not a secret
        held = await self._surely(
            lambda: self._store.deferred(
                claim.delivery.delivery_id, lease, words, retry_in=delay, maybe_taken=maybe_taken
            )
        )
        if held:
            self._metrics.deferred.inc()
            log.info("mail_deferred", code=code, retry_in=round(delay.total_seconds()), **_named(claim))

    async def _fail(
        self, claim: Claim, lease: UUID, words: str, cause: Cause, *, code: int | None = None, maybe_taken: bool = False
    ) -> None:
        held = await self._surely(
            lambda: self._store.failed(claim.delivery.delivery_id, lease, words, cause=cause, maybe_taken=maybe_taken)
        )
        if held:
            withheld = cause is Cause.TARGET
            self._finished("withheld" if withheld else "failed", claim)
            log.error(
                "mail_withheld" if withheld else "mail_failed", code=code, failed_for=cause.value, **_named(claim)
            )

    def _forged(self, withheld: Withheld) -> None:
        self._metrics.finished.labels(outcome="forged").inc()
        log.error("mail_forged", **withheld.named())

    def _bug(self, claim: Claim, error: Exception) -> None:
        self._metrics.mail_bugs.inc()
        # Where it was raised, and not its words, which may repeat the address.
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        log.error("mail_bug", cause=type(error).__name__, places=places[-8:], **_named(claim))

    def _finished(self, outcome: str, claim: Claim) -> None:
        self._metrics.finished.labels(outcome=outcome).inc()
        self._metrics.finished.labels(outcome="folded").inc(len(claim.folded))

    async def _surely(self, record: Callable[[], Awaitable[T]]) -> T:
        """Write something down, however long PostgreSQL is away: see the module's text on the window."""
        failures = 0
        while True:
            try:
                return await record()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                wait = _RECORDING.after(failures)
                self._hold(error, wait)
            await asyncio.sleep(wait)


def _named(claim: Claim) -> dict[str, object]:
    """What a log line may say of a mail: ids and numbers, never the address or the server's words, which repeat it."""
    delivery = claim.delivery
    return {
        "delivery_id": str(delivery.delivery_id),
        "petition_id": delivery.petition_id,
        "target_id": delivery.target_id,
        "milestones": claim.milestones,
        "attempt": claim.attempts + 1,
    }
