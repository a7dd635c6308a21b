"""Handing mails to an SMTP server over one connection.

Nothing here knows rows or retries. A mail ends in one of four ways: a `Reply`; `MailCut` (no reply: the connection broke
or the time was up); `SmtpAway` (no mail can be handed over at all); `Unmailable` (this server can never take it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import aiosmtplib
import structlog

from services.notify.deliveries import one_line, shorten
from services.notify.mail.letter import Mail, Unmailable
from services.notify.mail.refusals import NEEDS_SMTPUTF8
from services.notify.mail.replies import Reply, Stage

log = structlog.get_logger(__name__)

_QUIT_SECONDS: Final = 2.0


class MailCut(Exception):
    """A mail got no answer: the connection broke or the time was up. At `Stage.CONTENT` it may have been taken."""

    def __init__(self, stage: Stage, cause: str) -> None:
        super().__init__(f"{cause} ({stage.value})")
        self.stage, self.cause = stage, cause


class SmtpSession:
    """One connection at a time, renewed when the server has closed it between two mails.

    Args:
        connected: Makes a connection, encrypted and logged in; raises `SmtpAway` if there is none to be had.
        timeout_seconds: For one whole mail, connecting anew included.
    """

    def __init__(self, connected: Callable[[], Awaitable[aiosmtplib.SMTP]], timeout_seconds: float) -> None:
        self._connected, self._timeout = connected, timeout_seconds
        self._client: aiosmtplib.SMTP | None = None
        self._stage = Stage.SENDER

    async def connect(self) -> None:
        """Connect.

        Raises:
            SmtpAway: the server is not to be had.
        """
        self._client = await self._connected()

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


def _reply(stage: Stage, code: int, text: str) -> Reply:
    # Servers write what they like; rows hold text. 500 characters hold the longest reply line of RFC 5321 section 4.5.3.
    return Reply(stage, code, shorten(one_line(text), 500))
