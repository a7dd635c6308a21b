"""The caught mails: in memory for the page, and in a file of JSON lines to survive a restart."""

import email
import email.policy
import json
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

_log = structlog.get_logger(__name__)


class Mail(BaseModel):
    """One mail as it was received, envelope and content.

    Attributes:
        id: its number in this mailbox, from 1.
        mail_from: the envelope's sender (SMTP MAIL FROM).
        rcpt_to: the envelope's recipients (SMTP RCPT TO).
        subject: decoded subject line.
        headers: every header, decoded; of a repeated one the last.
        text: the text part, empty when there is none.
        html: the HTML part, empty when there is none.
        received_at: when it was received, RFC 3339, UTC.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    mail_from: str
    rcpt_to: list[str]
    subject: str
    headers: dict[str, str]
    text: str
    html: str
    received_at: str


class MailboxStore:
    """Mails in the order they came, appended to a file before SMTP says 250."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mails: list[Mail] = []
        self._last_id = 0
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            self._read()

    @property
    def mails(self) -> Sequence[Mail]:
        """All mails, the oldest first."""
        return self._mails

    def get(self, mail_id: int) -> Mail | None:
        """Return one mail, or None if there is none with this id."""
        return next((mail for mail in self._mails if mail.id == mail_id), None)

    def add(self, *, mail_from: str, rcpt_to: Sequence[str], content: bytes, received_at: str) -> Mail:
        """Store a mail; it is in the file when this returns."""
        self._last_id += 1
        mail = parse(
            mail_id=self._last_id, mail_from=mail_from, rcpt_to=rcpt_to, content=content, received_at=received_at
        )
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(mail.model_dump_json() + "\n")
        self._mails.append(mail)
        return mail

    def clear(self) -> int:
        """Remove all mails; return their number. Ids keep rising, so that an old link never shows another mail."""
        count = len(self._mails)
        self._mails.clear()
        self._file.write_text("", encoding="utf-8")
        return count

    def _read(self) -> None:
        whole: list[str] = []
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                self._mails.append(Mail.model_validate(json.loads(line)))
                whole.append(line)
            except (json.JSONDecodeError, ValidationError):
                # Killed during a write: the sender got no 250 and will send that mail again.
                _log.warning("mailbox_line_torn", file=str(self._file), line=line[:80])
        self._file.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
        self._last_id = max((mail.id for mail in self._mails), default=0)


def parse(*, mail_id: int, mail_from: str, rcpt_to: Sequence[str], content: bytes, received_at: str) -> Mail:
    """Parse a message (RFC 5322) into what the mailbox shows."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    return Mail(
        id=mail_id,
        mail_from=mail_from,
        rcpt_to=list(rcpt_to),
        subject=str(message.get("Subject", "")),
        headers={name: str(value) for name, value in message.items()},
        text=_body(message, "plain"),
        html=_body(message, "html"),
        received_at=received_at,
    )


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    # SMTP ends lines with CRLF; the sender wrote Python's newlines.
    return "" if part is None else str(part.get_content()).replace("\r\n", "\n")
