"""Handing mails to an SMTP server over one connection.

This module knows neither rows nor retries. A mail ends in one of four ways: a `Reply`; `MailCut` (no reply: the connection
broke or the timeout passed); `SmtpAway` (no mail can be sent at all); `Unmailable` (this server can never accept it).
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
    """A mail got no reply: the connection broke or the timeout passed. At `Stage.CONTENT` it may have been accepted."""

    def __init__(self, stage: Stage, cause: str) -> None:
        super().__init__(f"{cause} ({stage.value})")
        self.stage, self.cause = stage, cause


class SmtpSession:
    """One connection at a time, renewed if the server has closed it between two mails.

    Args:
        connected: Opens a connection, encrypted and logged in; raises `SmtpAway` if that fails.
        timeout_seconds: Timeout for one whole mail, including a reconnect.
    """

    def __init__(self, connected: Callable[[], Awaitable[aiosmtplib.SMTP]], timeout_seconds: float) -> None:
        self._connected, self._timeout = connected, timeout_seconds
        self._client: aiosmtplib.SMTP | None = None
        self._stage = Stage.SENDER

    async def connect(self) -> None:
        """Connect.

        Raises:
            SmtpAway: the server cannot be reached, or refuses us.
        """
        self._client = await self._connected()

    async def close(self) -> None:
        """Send QUIT, if connected, and close."""
        client, self._client = self._client, None
        if client is None or not client.is_connected:
            return
        try:
            await client.quit(timeout=_QUIT_SECONDS)
        except (aiosmtplib.SMTPException, OSError) as error:
            # Every mail has its reply already, so a failed QUIT has no consequence.
            log.debug("smtp_quit_unanswered", cause=type(error).__name__)
        finally:
            client.close()

    async def send(self, mail: Mail) -> Reply:
        """Send one mail within the timeout, including a reconnect.

        Raises:
            MailCut: no reply.
            SmtpAway: the connection was closed, and a new one could not be opened.
            Unmailable: the mail has an international address, which the server does not support.
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
        # Servers close a connection that was idle or has carried many mails, with 421 or silently. This mail has not been
        # offered yet, so it is sent over a new one.
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
            client.close()  # timed out or cancelled: a late reply must not be taken for that of a later command
            raise

    @staticmethod
    async def _reset(client: aiosmtplib.SMTP) -> None:
        """Clear the envelope for the next mail (RSET), or close the connection if that fails."""
        try:
            await client.rset(timeout=_QUIT_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            client.close()


def _reply(stage: Stage, code: int, text: str) -> Reply:
    # Servers may send any bytes. 500 characters hold the longest reply line of RFC 5321 section 4.5.3.
    return Reply(stage, code, shorten(one_line(text), 500))
