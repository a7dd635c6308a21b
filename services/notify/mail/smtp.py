"""The SMTP server: one connection for several mails, and whether it is there.

Nothing here knows rows or retries. A mail ends in one of four ways: a `Reply`; `MailCut` (no reply: the connection broke
or the time was up); `SmtpAway` (no mail can be handed over at all); `Unmailable` (this server can never take it).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiosmtplib
import structlog

from services.notify.deliveries import Reply, Stage, one_line, shorten
from services.notify.mail.letter import Mail, Unmailable
from services.notify.mail.refusals import NEEDS_SMTPUTF8
from services.notify.mail.server import SmtpServer
from shared.runtime.tls import client_context
from shared.runtime.unreachable import why

log = structlog.get_logger(__name__)

_PROBE_SECONDS: Final = 1.5
"""Below the two seconds that a readiness check has."""
_FRESH_SECONDS: Final = 10.0
"""How long a sight of the server answers readiness checks, so that probes every few seconds do not each connect."""
_REFUSAL_SECONDS: Final = 60.0
"""How long a refused login or sender is remembered: longer than the sender's longest wait (30 s), because a probe, which
does not log in, would call the server well in between."""
_QUIT_SECONDS: Final = 2.0


class SmtpAway(ConnectionError):
    """The server takes no mail from us now. No delivery is to blame; waiting, or a person, can help.

    The message holds neither addresses nor credentials.
    """


class MailCut(Exception):
    """A mail got no answer: the connection broke or the time was up. At `Stage.CONTENT` it may have been taken."""

    def __init__(self, stage: Stage, cause: str) -> None:
        super().__init__(f"{cause} ({stage.value})")
        self.stage, self.cause = stage, cause


class SmtpRelay:
    """The server that takes our mails.

    Args:
        server: Where it is.
        timeout_seconds: For connecting, and for one whole mail.
        authorities: Certificates (PEM), one of which must have signed the server's; None: those this machine trusts.
    """

    def __init__(self, server: SmtpServer, *, timeout_seconds: float, authorities: str | None = None) -> None:
        self._server, self._timeout = server, timeout_seconds
        self._tls = None if server.encryption == "none" else client_context(authorities=authorities)
        self._own_name = _own_name()
        self._seen_at: float | None = None  # when it was last seen to answer
        self._problem: str | None = None
        self._refused_at: float | None = None  # when it last answered, but not with a welcome

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SmtpSession]:
        """A connection, logged in, for as many mails as the body sends.

        Raises:
            SmtpAway: there is none to be had.
        """
        session = SmtpSession(self, self._timeout)
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
        """Note that the server takes nothing from us, and return the exception that says so."""
        reason = f"the SMTP server refuses this installation: {reply.code} at {reply.stage.value}"
        self._note(reason, refused=True)
        return SmtpAway(reason)

    async def check(self) -> str | None:
        """Readiness: does it answer? A recent sight of it counts; otherwise connect, encrypt if that is asked for, and
        leave."""
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
            self._seen_at = None  # away: look again at every check, so that its return is seen at once
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
            # False rather than "if offered": whether a password and the mails travel encrypted is not the server's, or
            # a man in the middle's, to decide.
            start_tls=server.encryption == "starttls",
            tls_context=self._tls,
            local_hostname=self._own_name,
            timeout=timeout,
        )


class SmtpSession:
    """One connection at a time, renewed when the server has closed it between two mails."""

    def __init__(self, relay: SmtpRelay, timeout_seconds: float) -> None:
        self._relay, self._timeout = relay, timeout_seconds
        self._client: aiosmtplib.SMTP | None = None
        self._stage = Stage.SENDER

    async def connect(self) -> None:
        """Connect.

        Raises:
            SmtpAway: the server is not to be had.
        """
        self._client = await self._relay.connect()

    async def close(self) -> None:
        """Say QUIT if there is anybody to say it to."""
        client, self._client = self._client, None
        if client is None or not client.is_connected:
            return
        try:
            await client.quit(timeout=_QUIT_SECONDS)
        except (aiosmtplib.SMTPException, OSError) as error:
            # Every mail has its reply; how the server takes a goodbye changes none of them.
            log.debug("smtp_quit_unanswered", cause=type(error).__name__)
        finally:
            client.close()

    async def send(self, mail: Mail) -> Reply:
        """Hand over one mail: within the timeout, connecting anew included.

        Raises:
            MailCut: no reply.
            SmtpAway: the connection was gone, and there is no new one to be had.
            Unmailable: the server does not take international addresses, and the mail has one.
        """
        self._stage = Stage.SENDER
        try:
            async with asyncio.timeout(self._timeout):
                return await self._send(mail)
        except TimeoutError as error:
            raise MailCut(self._stage, "no answer in time") from error

    async def _send(self, mail: Mail) -> Reply:
        fresh = self._client is None or not self._client.is_connected
        if fresh:
            await self.connect()
        try:
            reply = await self._transact(mail)
        except MailCut as cut:
            if fresh or cut.stage is not Stage.SENDER:
                raise
        else:
            if fresh or reply.code != 421 or reply.stage is not Stage.SENDER:
                return reply
        # Servers end a connection that was idle or has carried many mails, with 421 or without a word. This mail has
        # not been offered yet, so it goes over a new one.
        await self.connect()
        return await self._transact(mail)

    async def _transact(self, mail: Mail) -> Reply:
        client = self._client
        assert client is not None
        if mail.utf8 and not client.supports_extension("smtputf8"):
            raise Unmailable(NEEDS_SMTPUTF8)
        encoding, options = ("utf-8", ["SMTPUTF8", "BODY=8BITMIME"]) if mail.utf8 else ("ascii", [])
        self._stage = Stage.SENDER
        try:
            await client.mail(mail.sender, options=options, encoding=encoding)
            self._stage = Stage.RECIPIENT
            await client.rcpt(mail.recipient, encoding=encoding)
            self._stage = Stage.CONTENT
            accepted = await client.data(mail.content)
            return _reply(self._stage, accepted.code, accepted.message)
        except aiosmtplib.SMTPResponseException as refused:
            await self._reset(client)
            return _reply(self._stage, refused.code, refused.message)
        except (aiosmtplib.SMTPException, OSError) as error:
            client.close()
            raise MailCut(self._stage, "connection lost") from error
        except BaseException:
            client.close()  # out of time, or stopped: a reply may still come, which belongs to no later command
            raise

    @staticmethod
    async def _reset(client: aiosmtplib.SMTP) -> None:
        """Clear the envelope for the next mail, or end the connection where that cannot be had."""
        try:
            await client.rset(timeout=_QUIT_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            client.close()


def _own_name() -> str:
    """What we call ourselves in EHLO: this machine's full name or, as RFC 5321 section 4.1.4 asks where there is none, an
    address literal. Looked up once: name servers can take seconds to say that they do not know."""
    name = socket.getfqdn()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _reply(stage: Stage, code: int, text: str) -> Reply:
    # Servers write what they like; rows hold text. 500 characters hold the longest reply line of RFC 5321 section 4.5.3.
    return Reply(stage, code, shorten(one_line(text), 500))


async def _greet(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()  # a server from before 1995 (RFC 1869)


def _reason(error: Exception) -> str:
    """What is wrong with the server, in a few words."""
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
