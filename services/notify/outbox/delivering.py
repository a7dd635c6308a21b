"""Delivers one mail: checks it, sends it, and records the result.

The sender calls `MailDelivery.deliver` with a claim that it holds; docs/adr/0008 and `sender` describe the effects of a
crash at each step. A result is recorded only under the lease with which it was obtained, except ``sent``, which is true under
any lease.
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
from uuid import UUID

import structlog

from services.notify.deliveries import NO_TARGET, Claim, address_of
from services.notify.mail.letter import MailWriter, Unmailable
from services.notify.mail.refusals import Cause, cause_of
from services.notify.mail.replies import Reply, Stage, Verdict, verdict
from services.notify.mail.smtp import SmtpRelay
from services.notify.mail.smtp_session import MailCut, SmtpSession
from services.notify.metrics import NotifyMetrics
from services.notify.outbox.rules import RetryRule
from services.notify.outbox.store import DeliveryStore
from services.notify.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.runtime.backoff import Backoff
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RECORDING: Final = Backoff(0.1, 2.0)
"""Waits between attempts to record a server's reply. Short, because until then a crash would send the mail again."""


def hold(metrics: NotifyMetrics, error: Exception, wait: float) -> None:
    """Count and log that the sender is held for `wait` seconds because something is away."""
    metrics.held.set(1)
    metrics.holds.labels(cause=type(error).__name__).inc()
    # The text of `SmtpAway` is written for logs; PostgreSQL's may quote values.
    reason = str(error) if isinstance(error, ConnectionError) else type(error).__name__
    log.warning("sender_held", cause=type(error).__name__, reason=reason, wait=round(wait, 2))


class MailDelivery:
    """Delivers mails that a sender has claimed.

    Args:
        store: The deliveries.
        relay: The SMTP server.
        writer: Writes the mails.
        catalogue: The petitions with their targets.
        settings: The settings of retries.
        metrics: The metrics of notify.
    """

    def __init__(
        self,
        *,
        store: DeliveryStore,
        relay: SmtpRelay,
        writer: MailWriter,
        catalogue: Catalogue,
        settings: Settings,
        metrics: NotifyMetrics,
    ) -> None:
        self._store, self._relay, self._writer = store, relay, writer
        self._catalogue, self._metrics = catalogue, metrics
        self._retry = RetryRule(
            first=timedelta(seconds=settings.retry_first_seconds),
            most=timedelta(seconds=settings.retry_most_seconds),
            give_up_after=timedelta(days=settings.give_up_days),
        )

    async def deliver(self, session: SmtpSession, claim: Claim, lease: UUID) -> bool:
        """Deliver a mail. Returns whether its result is recorded, or it may be given back.

        False after an unexpected exception: the server may have accepted the mail, so it stays under its lease, which
        doubles each time. If it were given back, it would be sent again at once.

        Raises:
            Exception: a transient error.
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
        """Check one mail, send it, and record the result.

        Raises:
            SmtpAway: the server accepts nothing from us; this mail and the rest remain to be sent.
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
        """The mail, to its target's present address; None if it is not to be sent, or not now."""
        petition = self._catalogue.published(claim.delivery.petition_id)
        if petition is None:
            return None  # just deleted or unpublished; the mail is given back, and waits for the petition
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

    # ------------------------------------------------------------------------------------------- recording the result

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

    def _bug(self, claim: Claim, error: Exception) -> None:
        self._metrics.mail_bugs.inc()
        # Only where it was raised: the message may repeat the address.
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        log.error("mail_bug", cause=type(error).__name__, places=places[-8:], **_named(claim))

    def _finished(self, outcome: str, claim: Claim) -> None:
        self._metrics.finished.labels(outcome=outcome).inc()
        self._metrics.finished.labels(outcome="folded").inc(len(claim.folded))

    async def _surely(self, record: Callable[[], Awaitable[T]]) -> T:
        """Record a result, however long PostgreSQL is away: `sender` explains the window that this keeps short."""
        failures = 0
        while True:
            try:
                return await record()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                wait = _RECORDING.after(failures)
                hold(self._metrics, error, wait)
            await asyncio.sleep(wait)


def _named(claim: Claim) -> dict[str, object]:
    """The fields of a mail for logs: ids and numbers, never the address or the server's reply, which may repeat it."""
    delivery = claim.delivery
    return {
        "delivery_id": str(delivery.delivery_id),
        "petition_id": delivery.petition_id,
        "target_id": delivery.target_id,
        "milestones": claim.milestones,
        "attempt": claim.attempts + 1,
    }
