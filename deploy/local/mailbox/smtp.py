"""The SMTP side: accepts every mail, except for recipients that are configured to be deferred or refused."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.local.mailbox.store import MailboxStore

_ASKED_IN_ADDRESS = re.compile(r"(?:defer(?P<defer>4\d\d)|refuse(?P<refuse>5\d\d))(?:\+[^@]*)?@", re.IGNORECASE)


class Refusals:
    """Which recipients are answered with an SMTP error, so that senders can be tested without a faulty server.

    There are two ways. An address whose local part is `defer` + a 4xx code or `refuse` + a 5xx code always gets that code:
    `defer451@example.org`, `refuse550+anything@example.org`. Any other address gets the reply set by `replace` (HTTP:
    `PUT /refusals`) until the next `replace`, for mail that is deferred first and accepted later.
    """

    def __init__(self) -> None:
        self._replies: dict[str, str] = {}

    @property
    def replies(self) -> Mapping[str, str]:
        """The replies set with `replace`, by address in lower case."""
        return self._replies

    def replace(self, replies: Mapping[str, str]) -> None:
        """Replace all replies.

        Raises:
            ValueError: a reply is not a 4xx or 5xx code followed by a text.
        """
        for address, reply in replies.items():
            if not re.fullmatch(r"[45]\d\d [^\r\n]+", reply):
                raise ValueError(f"reply for {address} must read like '451 try later', not {reply!r}")
        self._replies = {address.lower(): reply for address, reply in replies.items()}

    def reply_to(self, address: str) -> str | None:
        """Return the error reply for a recipient, or None if its mail is accepted."""
        if reply := self._replies.get(address.lower()):
            return reply
        if asked := _ASKED_IN_ADDRESS.match(address):
            code = asked["defer"] or asked["refuse"]
            return f"{code} {'Try again later' if asked['defer'] else 'No such mailbox'}"
        return None


class CatchAll:
    """aiosmtpd's handler: its hooks are called by name."""

    def __init__(self, *, store: MailboxStore, refusals: Refusals) -> None:
        self._store = store
        self._refusals = refusals

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer to RCPT TO."""
        if reply := self._refusals.reply_to(address):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Answer to the end of DATA: 250 once the mail is in the file."""
        content = envelope.content
        assert isinstance(content, bytes)  # decode_data is off
        mail = self._store.add(
            mail_from=envelope.mail_from or "",
            rcpt_to=envelope.rcpt_tos,
            content=content,
            received_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        return f"250 kept as {mail.id}"
