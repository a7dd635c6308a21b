"""An SMTP server with scripted answers, in the test's own event loop."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from deploy.local.parts.ports import LOOPBACK, free_port

Stage = Literal["MAIL", "RCPT", "DATA"]

CUT = "cut the connection"
"""Instead of an answer: the connection is closed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A mail whose whole content the server received, whatever it answered."""

    recipient: str
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The mail, read."""
        return email.message_from_bytes(self.content, policy=email.policy.default)

    @property
    def id(self) -> str:
        """Its Message-ID."""
        return str(self.message["Message-ID"])

    @property
    def milestones(self) -> str:
        """The thresholds that it names."""
        return str(self.message["X-Groundswell-Milestones"])


class ScriptedSmtp:
    """Listens on a port that it keeps while it is down.

    Attributes:
        taken: the mails whose content arrived, in order.
        connections: how often somebody said EHLO.
        greeted: how often somebody connected at all.
        on_data: called when the content of a mail has arrived, before the answer.
        raw_answer: bytes to answer content with, instead of an answer.
        mails_per_connection: after so many mails the server ends the connection without an answer.
    """

    def __init__(
        self,
        *,
        utf8: bool = False,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.taken: list[Taken] = []
        self.connections = 0
        self.greeted = 0
        self.on_data: Callable[[], Awaitable[None]] | None = None
        self.mails_per_connection: int | None = None
        self.raw_answer: bytes | None = None
        self._utf8, self._tls, self._login = utf8, tls, login
        self._answers: dict[str, deque[str]] = {stage: deque() for stage in ("MAIL", "RCPT", "DATA")}
        self._always: dict[str, str] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()
        self._carried: dict[Session, int] = {}

    @property
    def url(self) -> str:
        """Where it is, without encryption."""
        return f"smtp://{LOOPBACK}:{self.port}"

    def answer(self, stage: Stage, *answers: str) -> None:
        """Give these answers, one per mail, before going back to 250."""
        self._answers[stage].extend(answers)

    def always(self, recipient: str, answer: str) -> None:
        """Give this recipient this answer, every time, at the end of the content."""
        self._always[recipient] = answer

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, LOOPBACK, self.port)

    async def stop(self) -> None:
        """Refuse connections from now on, and end those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in self._open:
            transport.abort()
        self._open.clear()

    async def __aenter__(self) -> ScriptedSmtp:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _protocol(self) -> SMTP:
        self.greeted += 1
        return SMTP(
            self,
            enable_SMTPUTF8=self._utf8,
            hostname="scripted.example",
            tls_context=self._tls,
            require_starttls=self._tls is not None,
            auth_required=self._login is not None,
            authenticator=self._authenticate if self._login else None,
            loop=asyncio.get_running_loop(),
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login.decode(), data.password.decode()) == self._login
        return AuthResult(success=right, handled=right)  # not handled: aiosmtpd answers 535

    # aiosmtpd calls these by name -----------------------------------------------------------------------------------

    async def handle_EHLO(
        self, server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        assert isinstance(server.transport, asyncio.Transport)
        self._open.add(server.transport)
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        full = self.mails_per_connection is not None and self._carried.get(session, 0) >= self.mails_per_connection
        answer = self._given(CUT if full else self._next("MAIL"), server)
        if answer.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer

    async def handle_RCPT(
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = self._given(self._next("RCPT"), server)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        (recipient,) = envelope.rcpt_tos
        self.taken.append(Taken(recipient, envelope.content))
        if self.on_data is not None:
            await self.on_data()
        self._carried[session] = self._carried.get(session, 0) + 1
        if self.raw_answer is not None:
            await server.push(self.raw_answer)
            return ""
        return self._given(self._always.get(recipient) or self._next("DATA"), server)

    def _next(self, stage: Stage) -> str:
        return self._answers[stage].popleft() if self._answers[stage] else "250 OK"

    def _given(self, answer: str, server: SMTP) -> str:
        if answer == CUT:
            self._cut(server)
            return "421 nobody hears this"
        return answer

    @staticmethod
    def _cut(server: SMTP) -> None:
        if isinstance(server.transport, asyncio.Transport):
            server.transport.abort()
