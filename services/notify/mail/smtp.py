"""Connections to the SMTP server, and its readiness check."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiosmtplib

from services.notify.mail.replies import Reply
from services.notify.mail.server import SmtpServer
from services.notify.mail.smtp_session import SmtpSession
from shared.runtime.tls import client_context
from shared.runtime.unreachable import why

_PROBE_SECONDS: Final = 1.5
"""Below the two-second timeout of a readiness check."""
_FRESH_SECONDS: Final = 10.0
"""How long readiness checks rely on the last contact, so that not every probe connects."""
_REFUSAL_SECONDS: Final = 60.0
"""How long a refused login or sender is remembered: longer than the sender's longest wait (30 s), because a probe does not
log in, and would report the server as ready in between."""


class SmtpAway(ConnectionError):
    """The server accepts no mail from us now, for a cause outside the deliveries: transient, or to be fixed by a person.

    The message holds neither addresses nor credentials.
    """


class SmtpRelay:
    """The SMTP server to which notify hands its mails.

    Args:
        server: Address, encryption and credentials.
        timeout_seconds: Timeout for connecting, and for one whole mail.
        authorities: Certificates (PEM) of the authorities trusted to sign the server's; None: the machine's trust store.
    """

    def __init__(self, server: SmtpServer, *, timeout_seconds: float, authorities: str | None = None) -> None:
        self._server, self._timeout = server, timeout_seconds
        self._tls = None if server.encryption == "none" else client_context(authorities=authorities)
        self._own_name = _own_name()
        self._seen_at: float | None = None  # when it was last seen to answer
        self._problem: str | None = None
        self._refused_at: float | None = None  # when it last answered with a refusal

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SmtpSession]:
        """A connection, logged in, for any number of mails.

        Raises:
            SmtpAway: the server cannot be reached, or refuses us.
        """
        session = SmtpSession(self.connect, self._timeout)
        try:
            await session.connect()
            yield session
        finally:
            await session.close()

    async def connect(self) -> aiosmtplib.SMTP:
        """Connect, encrypt, log in.

        Raises:
            SmtpAway: one of these failed.
        """
        client = self._client(timeout=self._timeout, login=True)
        try:
            async with asyncio.timeout(self._timeout):
                await client.connect()
                if client.is_ehlo_or_helo_needed:
                    await _greet(client)
        except (aiosmtplib.SMTPException, OSError) as error:
            client.close()
            answered = isinstance(error, aiosmtplib.SMTPResponseException)
            self._note(_reason(error), refused=answered)
            raise SmtpAway(_reason(error)) from error
        except BaseException:
            client.close()
            raise
        self._note(None)
        return client

    def refused(self, reply: Reply) -> SmtpAway:
        """Note that the server accepts nothing from us, and return the exception to raise."""
        reason = f"the SMTP server refuses this installation: {reply.code} at {reply.stage.value}"
        self._note(reason, refused=True)
        return SmtpAway(reason)

    async def check(self) -> str | None:
        """Readiness check: whether the server answers. A recent contact counts; otherwise connect, encrypt if configured,
        and disconnect."""
        now = asyncio.get_running_loop().time()
        if self._refused_at is not None and now - self._refused_at < _REFUSAL_SECONDS:
            return self._problem
        if self._seen_at is None or now - self._seen_at >= _FRESH_SECONDS:
            await self._probe()
        return self._problem

    async def _probe(self) -> None:
        client = self._client(timeout=_PROBE_SECONDS, login=False)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await client.connect()
                await client.quit()
        except (aiosmtplib.SMTPException, OSError) as error:
            self._note(_reason(error))
            self._seen_at = None  # away: connect at every check, so that its return is noticed at once
        else:
            self._note(None)
        finally:
            client.close()

    def _note(self, problem: str | None, *, refused: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        self._problem, self._seen_at = problem, now
        self._refused_at = now if refused else None

    def _client(self, *, timeout: float, login: bool) -> aiosmtplib.SMTP:
        server = self._server
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username if login else None,
            password=server.password if login else None,
            use_tls=server.encryption == "tls",
            # False rather than "if offered": otherwise the server, or a man in the middle, decides whether the password
            # and the mails are encrypted.
            start_tls=server.encryption == "starttls",
            tls_context=self._tls,
            local_hostname=self._own_name,
            timeout=timeout,
        )


def _own_name() -> str:
    """Our name in EHLO: this machine's full name or, where there is none, an address literal (RFC 5321 section 4.1.4).
    Looked up once, because a failing name lookup can take seconds."""
    name = socket.getfqdn()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


async def _greet(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()  # a server from before 1995 (RFC 1869)


def _reason(error: Exception) -> str:
    """A short description of an error of the server."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return f"the SMTP server refuses the login: {error.code}"
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"the SMTP server turns us away: {error.code}"
    if isinstance(error, TimeoutError):
        return "the SMTP server does not answer in time"
    if isinstance(error, (aiosmtplib.SMTPConnectError, OSError)):
        told = why(error)
        named = error.__cause__ or error if told == type(error).__name__ else None
        return f"the SMTP server cannot be reached: {told if named is None else type(named).__name__}"
    return f"the SMTP server cannot do what is asked of it: {error}"
