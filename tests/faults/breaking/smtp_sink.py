"""The SMTP server of the harness: keeps the mails it received, and can misbehave on demand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.scripted_smtp import CUT, ScriptedSmtp, Stage, Taken


@dataclass(slots=True, kw_only=True)
class Mail:
    """A mail whose content arrived completely. The server has it, whatever answer the sender got.

    Attributes:
        answer: the code of the answer: 250 accepted, 4xx to be retried, 5xx never to be retried; None when the
            connection ended before the answer.
        digest: of the whole content; copies of a mail have the same.
    """

    message_id: str
    recipient: str
    petition_id: str
    milestones: tuple[int, ...]
    at: datetime
    digest: str
    answer: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether it was answered with 250. The answer may still have been lost."""
        return self.answer == 250

    @property
    def refused(self) -> bool:
        """Whether it was refused for good: it need not arrive, unless another attempt was accepted."""
        return self.answer is not None and self.answer >= 500

    @property
    def kept(self) -> bool:
        """Whether the recipient has it: it was accepted, or the connection ended after the content."""
        return self.answer is None or self.accepted


@dataclass(slots=True)
class Trouble:
    """A misbehaviour of the server, and what it has hit so far.

    Attributes:
        answers: the answer at a stage instead of 250. At ``DATA`` it comes after the content.
        delays: seconds before the answer at a stage.
        one_recipient: only the recipient of the first content is hit.
        hits: number of answers that were late or not 250.
        recipient: the one that is hit, as soon as it is known.
    """

    answers: Mapping[Stage, str] = field(default_factory=dict)
    delays: Mapping[Stage, float] = field(default_factory=dict)
    one_recipient: bool = False
    hits: int = 0
    recipient: str | None = None

    def concerns(self, recipient: str | None) -> bool:
        """Whether a mail to this recipient is hit; at ``MAIL`` it is not known yet."""
        if not self.one_recipient:
            return True
        if self.recipient is None:
            self.recipient = recipient
        return recipient == self.recipient


class SmtpSink(ScriptedSmtp):
    """Listens on `port` of loopback, in the event loop of the harness.

    Attributes:
        mails: those whose content arrived completely, in order. Several with one Message-ID are copies.
        unknown: addresses without a mailbox; they are refused for good, before any content.
    """

    def __init__(self) -> None:
        super().__init__(utf8=True)
        self.mails: list[Mail] = []
        self.unknown: set[str] = set()
        self._trouble = Trouble()

    # Ways of behaving badly; one at a time ----------------------------------------------------------------------------

    @contextmanager
    def deferring(self, stage: Stage) -> Iterator[Trouble]:
        """Answer every mail with 4xx at this stage."""
        with self._in(Trouble({stage: "451 4.3.0 try again later"})) as trouble:
            yield trouble

    @contextmanager
    def refusing_one_recipient(self) -> Iterator[Trouble]:
        """Refuse for good every mail to the recipient of the first content; accept the others."""
        with self._in(Trouble({"DATA": "550 5.7.1 not wanted here"}, one_recipient=True)) as trouble:
            yield trouble

    @contextmanager
    def dropping(self) -> Iterator[Trouble]:
        """Accept the content of every mail and cut the connection before the answer."""
        with self._in(Trouble({"DATA": CUT})) as trouble:
            yield trouble

    @contextmanager
    def slow(self, seconds: float, *stages: Stage) -> Iterator[Trouble]:
        """Wait before every answer, or before those at these stages."""
        with self._in(Trouble(delays=dict.fromkeys(stages or ("MAIL", "RCPT", "DATA"), seconds))) as trouble:
            yield trouble

    @contextmanager
    def _in(self, trouble: Trouble) -> Iterator[Trouble]:
        self._trouble = trouble
        try:
            yield trouble
        finally:
            self._trouble = Trouble()

    # aiosmtpd calls these by name -------------------------------------------------------------------------------------

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._given(await self._answer("MAIL"), server)
        if answer.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer

    async def handle_RCPT(
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 5.1.1 no such mailbox"
        answer = self._given(await self._answer("RCPT"), server)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        mail = _read(envelope)
        self.mails.append(mail)  # first: a sender that disconnects while the answer is late ends this coroutine
        answer = await self._answer("DATA", mail.recipient)
        if answer != CUT:
            mail.answer = int(answer[:3])
        return self._given(answer, server)

    async def _answer(self, stage: Stage, recipient: str | None = None) -> str:
        trouble = self._trouble
        answer = trouble.answers.get(stage)
        if answer is not None and trouble.concerns(recipient):
            trouble.hits += 1
            return answer
        if delay := trouble.delays.get(stage):
            trouble.hits += 1
            await asyncio.sleep(delay)
        return "250 OK"


def _read(envelope: Envelope) -> Mail:
    assert isinstance(envelope.content, bytes)
    (recipient,) = envelope.rcpt_tos
    taken = Taken(recipient, envelope.content)
    return Mail(
        message_id=taken.id,
        recipient=recipient,
        petition_id=str(taken.message["X-Groundswell-Petition"]),
        milestones=tuple(int(threshold) for threshold in taken.milestones.split(",")),
        at=datetime.now(UTC),
        digest=hashlib.sha256(envelope.content).hexdigest(),
    )
