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

Nothing is lost at any step: a row leaves ``pending`` and ``sending`` only by a server's final answer, or when servers have
put the mail off for longer than the time to give up.

While the SMTP server is away, nothing is claimed, so no delivery spends attempts on that; the sender waits and looks
again. A connection that breaks in the middle of a mail puts that mail off like a 4xx, because the mail itself may be what
breaks it, and the others must get past it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from services.notify.deliveries import Claim, Reply, RetryRule, Verdict, verdict
from services.notify.mail import MailWriter, Unmailable
from services.notify.metrics import NotifyMetrics
from services.notify.settings import Settings
from services.notify.smtp import MailCut, SmtpRelay, SmtpSession
from services.notify.store import DeliveryStore
from shared.failpoints import failpoint
from shared.kafka.errors import is_transient

log = structlog.get_logger(__name__)

T = TypeVar("T")

_BACKOFF_FIRST, _BACKOFF_MOST = 0.5, 30.0
"""Waits while the SMTP server or PostgreSQL is away: half a minute at most, so that mail flows soon after its return."""

_RECORD_FIRST, _RECORD_MOST = 0.1, 2.0
"""Waits between tries to write down a server's answer. Short: until it is written, a crash would send the mail again."""


class Sender:
    """Runs until `stop`; several in several processes share the work."""

    def __init__(
        self, *, store: DeliveryStore, relay: SmtpRelay, writer: MailWriter, settings: Settings, metrics: NotifyMetrics
    ) -> None:
        self._store, self._relay, self._writer, self._metrics = store, relay, writer, metrics
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
        backoff = _BACKOFF_FIRST
        try:
            while not self._stopping.is_set():
                try:
                    sent_any = await self._pass()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    wait = backoff * random.uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret
                    backoff = min(backoff * 2, _BACKOFF_MOST)
                    self._hold(error, wait)
                    await self._pause(wait)
                else:
                    backoff = _BACKOFF_FIRST
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
        if not await self._store.anything_due():
            return False
        # Connected first, claimed then: what is due while the server is away stays free to be folded into a later mail.
        async with self._relay.session() as session:
            lease = uuid4()
            ends = time.monotonic() + self._settings.lease_seconds  # read before the claim, so never too late
            try:
                claims = await self._store.claim(
                    limit=self._settings.claim_batch,
                    lease=lease,
                    lease_for=timedelta(seconds=self._settings.lease_seconds),
                )
                await failpoint("notify.claimed")
                for claim in claims:
                    if self._stopping.is_set() or time.monotonic() + self._settings.smtp_timeout_seconds > ends:
                        break
                    await self._deliver(session, claim, lease)
            except Exception as error:
                # Also after a claim whose commit nobody confirmed. Not after a bug: the lease keeps others from running
                # into it at once.
                if is_transient(error):
                    await self._give_back(lease)
                raise
            await self._give_back(lease)
        return bool(claims)

    async def _give_back(self, lease: UUID) -> None:
        """What was not tried is due at once for anybody. If PostgreSQL is away: when the lease has run out."""
        try:
            await self._store.give_back(lease)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("lease_not_given_back", cause=type(error).__name__, seconds=self._settings.lease_seconds)

    async def _deliver(self, session: SmtpSession, claim: Claim, lease: UUID) -> None:
        """Send one mail and write down what became of it.

        Raises:
            SmtpAway: the server takes nothing from us; this mail and the rest stay to be sent.
        """
        if claim.taken_over:
            self._metrics.leases_expired.inc()
            log.warning("mail_taken_over", **_named(claim))
        started = time.perf_counter()
        try:
            reply = await session.send(self._writer.write(claim))
        except Unmailable as reason:
            await self._fail(claim, lease, str(reason))
            return
        except MailCut as cut:
            self._metrics.replies.labels("cut").inc()
            await self._defer(claim, lease, str(cut), code=None)
            return
        self._metrics.smtp_seconds.observe(time.perf_counter() - started)
        self._metrics.replies.labels(f"{reply.code // 100}xx" if 200 <= reply.code < 600 else "other").inc()
        match verdict(reply):
            case Verdict.SENT:
                await failpoint("notify.accepted")
                await self._sent(claim, reply)
            case Verdict.DEFERRED:
                await self._defer(claim, lease, str(reply), code=reply.code)
            case Verdict.REFUSED:
                await self._fail(claim, lease, str(reply), code=reply.code)
            case Verdict.NOT_OURS:
                raise self._relay.refused(reply)

    # ---------------------------------------------------------------------------------------------- what became of it

    async def _sent(self, claim: Claim, reply: Reply) -> None:
        await self._surely(lambda: self._store.sent(claim.delivery.delivery_id, str(reply)))
        self._finished("sent", claim)
        self._metrics.age_seconds.observe(max(0.0, (datetime.now(UTC) - claim.delivery.reached_at).total_seconds()))
        log.info("mail_sent", code=reply.code, **_named(claim))

    async def _defer(self, claim: Claim, lease: UUID, words: str, *, code: int | None) -> None:
        if self._retry.gives_up(claim.deferred_for):
            await self._fail(claim, lease, f"given up after {claim.deferred_for.days} days; last: {words}", code=code)
            return
        delay = self._retry.delay(claim.attempts + 1, random.random())  # noqa: S311  jitter, not a secret
        held = await self._surely(
            lambda: self._store.deferred(claim.delivery.delivery_id, lease, words, retry_in=delay)
        )
        if held:
            self._metrics.deferred.inc()
            log.info("mail_deferred", code=code, retry_in=round(delay.total_seconds()), **_named(claim))

    async def _fail(self, claim: Claim, lease: UUID, words: str, *, code: int | None = None) -> None:
        if await self._surely(lambda: self._store.failed(claim.delivery.delivery_id, lease, words)):
            self._finished("failed", claim)
            log.error("mail_failed", code=code, **_named(claim))

    def _finished(self, outcome: str, claim: Claim) -> None:
        self._metrics.finished.labels(outcome=outcome).inc()
        self._metrics.finished.labels(outcome="folded").inc(len(claim.folded))

    async def _surely(self, record: Callable[[], Awaitable[T]]) -> T:
        """Write something down, however long PostgreSQL is away: see the module's text on the window."""
        backoff = _RECORD_FIRST
        while True:
            try:
                return await record()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._hold(error, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _RECORD_MOST)


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
