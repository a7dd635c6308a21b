"""The SMTP server of the harness: keeps what it was given, and can be made to behave badly while it runs."""

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
    """A mail whose content came whole. The server has it from then on, whatever the sender heard.

    Attributes:
        answer: the code it was answered with: 250 taken, 4xx to be sent again, 5xx never to be sent again; None when the
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
        """Whether it was answered with 250. The answer may still have been lost on its way."""
        return self.answer == 250

    @property
    def refused(self) -> bool:
        """Whether it was refused for good: nobody may miss it, unless another attempt was not."""
        return self.answer is not None and self.answer >= 500

    @property
    def kept(self) -> bool:
        """Whether the recipient has it: accepted, or the connection ended when the content was there."""
        return self.answer is None or self.accepted


@dataclass(slots=True)
class Trouble:
    """How the server behaves badly, and whom it has hit so far.

    Attributes:
        answers: what is said at a stage instead of 250. At ``DATA`` it is said after the content.
        delays: seconds before the answer at a stage.
        one_recipient: only the recipient whose content comes first is hit.
        hits: answers given late or otherwise than 250.
        recipient: the one that is hit, once it is known.
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
        mails: those whose content came whole, in order. Several with one Message-ID are copies.
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
        """Put every mail off at this stage."""
        with self._in(Trouble({stage: "451 4.3.0 try again later"})) as trouble:
            yield trouble

    @contextmanager
    def refusing_one_recipient(self) -> Iterator[Trouble]:
        """Refuse for good every mail to the recipient whose content comes first; the others are taken."""
        with self._in(Trouble({"DATA": "550 5.7.1 not wanted here"}, one_recipient=True)) as trouble:
            yield trouble

    @contextmanager
    def dropping(self) -> Iterator[Trouble]:
        """Take the content of every mail and cut the connection before the answer."""
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
        self.mails.append(mail)  # first: a sender that goes away while the answer is late ends this coroutine
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
