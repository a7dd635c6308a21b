"""The mail: sender, recipient, content, and its exact bytes.

The same claim gives the same bytes at every attempt (Message-ID, Date and MIME boundary come from the delivery), so a mail
that is sent again is an exact copy.

Titles and names are texts of organisations, not ours: line breaks and control characters were removed when the delivery was
made (`deliveries.one_line`), Jinja2 escapes them in HTML, and they are never used as templates.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from services.notify.deliveries import Claim, message_id, one_line, shorten
from services.notify.mail.refusals import NO_ADDRESS
from shared.contract.bounds.invisible import BLANKS
from shared.contract.identity import InvalidEmail
from shared.contract.mail_address import wire_address

_SUBJECT_TITLE: Final = 120
"""Most characters of the title in the subject; mail programs' lists show about half of that."""
_LINE: Final = 72
"""RFC 5322 section 2.1.1 asks for lines below 78; this leaves room for quoting in an answer."""


_CRLF: Final = "\r\n"
_WORDS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
"""Atoms (RFC 5322 section 3.2.3): a display name of these needs no quoting."""


class Unmailable(ValueError):
    """No server can ever deliver this mail. The message gives the reason, without the address."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A name, perhaps empty, and an address in the form that goes over the wire."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        """The part after the @."""
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail ready to be sent."""

    sender: str
    recipient: str
    content: bytes
    utf8: bool
    """The recipient's address is not ASCII: the server must know SMTPUTF8 (RFC 6531)."""


def parse_mailbox(text: str) -> Mailbox:
    """Read ``address`` or ``Name <address>``.

    Raises:
        ValueError: it is neither, or the address is not ASCII: such a sender would exclude servers without SMTPUTF8.
    """
    # Not email.utils.parseaddr: it takes "a@one.example, b@two.example" for the first of the two.
    name, bracket, address = text.strip(BLANKS).rpartition("<")
    try:
        address = wire_address(address.removesuffix(">") if bracket else address)
    except InvalidEmail:
        raise ValueError("must be an e-mail address, or: Name <address>") from None
    if not address.isascii():
        raise ValueError("the part before the @ must be ASCII")
    return Mailbox(one_line(unicodedata.normalize("NFC", name).strip(BLANKS)).strip('"'), address)


class MailWriter:
    """Writes the mails of this installation.

    Args:
        mail_from: ``address`` or ``Name <address>``.
        pages_url: The base URL of the petition pages, without a slash at its end.
    """

    def __init__(self, *, mail_from: str, pages_url: str) -> None:
        self._from = parse_mailbox(mail_from)
        self._pages_url = pages_url
        environment = Environment(
            loader=PackageLoader("services.notify.mail"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(
            number=_number,
            numbers=_numbers,
            supporters=_supporters,
            moment=_moment,
            paragraph=_paragraph,
            addressed=_addressed,
            apart=_apart,
        )
        self._text = environment.get_template("milestone.txt")
        self._html = environment.get_template("milestone.html")

    def write(self, claim: Claim) -> Mail:
        """The mail about a claim.

        Raises:
            Unmailable: the target's address is not valid.
        """
        delivery = claim.delivery
        recipient = _recipient(delivery.email)
        said = self._said(claim)
        # Headers are written here, not by EmailMessage: when it folds a long quoted name it loses the quotes (seen
        # with Python 3.11), and "The Committee on Harbours, Ferries" becomes two addresses.
        headers = [
            _mailbox_header("From", self._from.name, self._from.address),
            _mailbox_header("To", delivery.target_name, recipient),
            _text_header(
                "Subject",
                f"{_supporters(delivery.threshold)}: {_apart(shorten(delivery.petition_title, _SUBJECT_TITLE))}",
            ),
            f"Date: {format_datetime(claim.chosen_at.astimezone(UTC))}",
            f"Message-ID: {message_id(delivery.delivery_id, self._from.domain)}",
            # Against automatic replies: RFC 3834, and the header that Exchange uses.
            "Auto-Submitted: auto-generated",
            "X-Auto-Response-Suppress: OOF, AutoReply",
            f"X-Groundswell-Petition: {delivery.petition_id}",
            _text_header("X-Groundswell-Milestones", ", ".join(str(threshold) for threshold in claim.milestones)),
        ]
        body = EmailMessage()
        # Quoted-printable is ASCII, so no server on the way needs 8BITMIME or changes the bytes.
        body.set_content(self._text.render(said), cte="quoted-printable")
        body.add_alternative(self._html.render(said), subtype="html", cte="quoted-printable")
        body.set_boundary(f"=_{delivery.delivery_id}")
        content = "".join(f"{header}\r\n" for header in headers).encode() + body.as_bytes(policy=SMTP)
        return Mail(self._from.address, recipient, content, utf8=not recipient.isascii())

    def _said(self, claim: Claim) -> dict[str, Any]:
        delivery = claim.delivery
        return {
            "title": delivery.petition_title,
            "organisation": delivery.organisation_name,
            "target": delivery.target_name,
            "target_kind": delivery.target_kind,
            "threshold": delivery.threshold,
            "count": delivery.count,
            "reached_at": delivery.reached_at,
            "passed": [threshold for threshold in claim.milestones if threshold < delivery.threshold],
            "url": f"{self._pages_url}/p/{delivery.petition_id}",
            "sender": self._from.name or "Groundswell",
        }


def _recipient(email: str) -> str:
    try:
        return wire_address(email)
    except InvalidEmail:
        raise Unmailable(NO_ADDRESS) from None


def _text_header(name: str, text: str) -> str:
    """A header whose value is free text, folded; as encoded words (RFC 2047) where it is not plain ASCII."""
    charset = "us-ascii" if text.isascii() and "=?" not in text else "utf-8"
    return f"{name}: {_encoded(name, text, charset)}"


def _mailbox_header(name: str, person: str, address: str) -> str:
    """A header with one name and address. A name that is more than words (commas, quotes, …) becomes encoded words, too:
    they need no quoting, in which readers and writers have bugs."""
    if not person:
        return f"{name}: {address}"
    charset = "us-ascii" if _WORDS.fullmatch(person) and "=?" not in person else "utf-8"
    phrase = _encoded(name, person, charset)
    short = len(name) + len(phrase) + len(address) <= _LINE and "\r\n" not in phrase
    return f"{name}: {phrase}{' ' if short else f'{_CRLF} '}<{address}>"


def _encoded(name: str, text: str, charset: str) -> str:
    return Header(text, charset, maxlinelen=_LINE, header_name=name).encode(linesep=_CRLF)


def _addressed(office: str) -> str:
    """The name of an office in a salutation: "Dear Harbour Master", not "Dear The Harbour Master"."""
    return office.removeprefix("The ")


def _apart(text: str) -> str:
    """`text` for use within our plain text. Right-to-left text is isolated (UAX #9, FSI and PDI), so that punctuation in
    and around it stays in place. Other texts get no such characters, which a mail program may not support."""
    turns = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)
    return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}" if turns else text


def _supporters(number: int) -> str:
    """``1 supporter``, ``2,500 supporters``."""
    return f"{_number(number)} supporter{'' if number == 1 else 's'}"


def _number(value: int) -> str:
    return f"{value:,}"


def _numbers(values: list[int]) -> str:
    """``1,000``, ``1,000 and 2,500``, ``1,000; 2,500 and 5,000``: the numbers have commas of their own."""
    *first, last = [_number(value) for value in values]
    return f"{'; '.join(first)} and {last}" if first else last


def _moment(value: datetime) -> str:
    value = value.astimezone(UTC)
    return f"{value.day} {value:%B %Y} at {value:%H:%M} UTC"


def _paragraph(text: str) -> str:
    """A paragraph of the text part, wrapped into lines; a word longer than a line, such as a link, is not broken."""
    return textwrap.fill(" ".join(text.split()), _LINE, break_long_words=False, break_on_hyphens=False)
