"""Why a mail failed, and whether another address of the target may help. No I/O.

A reply is classified by its enhanced status code (RFC 3463, RFC 5248 and its IANA registry), or else by its basic code
(RFC 5321 section 4.2.3) and the command that it answers. Its text is for people and is not interpreted.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from services.notify.deliveries import NO_TARGET, NOT_SENT, one_line
from services.notify.mail.replies import Reply, Stage

NO_ADDRESS: Final = "the target's address is not an e-mail address"
NEEDS_SMTPUTF8: Final = "the SMTP server does not take international addresses (SMTPUTF8, RFC 6531)"

ALREADY_TOLD: Final = NOT_SENT + "another mail about this milestone goes to the same address"
"""``last_reply`` of a delivery whose corrected address already gets the milestone as another target's."""

MOVED: Final = NOT_SENT + "its target goes by another id now"


class Cause(StrEnum):
    """Why a delivery is ``failed``: the column ``failed_for``."""

    ADDRESS = "address"
    """Its address: invalid, unknown, full, or of a domain without mail. Another address makes it due again."""
    SERVER = "server"
    """The server refused content or sender, or had a problem of its own; or the cause is not known."""
    TARGET = "target"
    """The petition no longer addresses the target. If it does so again, the delivery is due again."""
    WITHHELD = "withheld"
    """The row is not a delivery of a decided milestone, or it is not known whether a mail has named it."""
    MOVED = "moved"
    """The target has another id now, under which its milestones are delivered."""


_OWN_WORDS: Final = {
    NO_TARGET: Cause.TARGET,
    NO_ADDRESS: Cause.ADDRESS,
    NEEDS_SMTPUTF8: Cause.ADDRESS,
    ALREADY_TOLD: Cause.ADDRESS,
    MOVED: Cause.MOVED,
}

_MOST: Final = 1000
"""Details have three digits."""

_ABOUT_RECIPIENT: Final = {
    1: frozenset(range(_MOST)) - {7, 8, 9},  # addresses; 7 and 8 concern the sender, 9 a mailer
    2: frozenset(range(_MOST)),  # the mailbox: disabled, full, takes no mail of this length, a list
    4: frozenset(range(_MOST)) - {3, 5},  # routing to its domain; 3 and 5: the server's own directory and load
    6: frozenset({7}),  # an address that is not ASCII
    7: frozenset({17, 18}),  # mailbox or domain has a new owner (RFC 7293)
}
"""By subject of an enhanced status code, the details that concern the recipient."""

_SYNTAX_AT_RECIPIENT: Final = frozenset({2, 4})
"""Details of subject 5 (protocol) that concern the recipient after RCPT TO, whose only argument is the address."""

_BASIC_AT_RECIPIENT: Final = frozenset({450, 501, 550, 551, 552, 553, 556})
_BASIC_AT_CONTENT: Final = frozenset({551, 552, 553, 556})
"""Our mails have a few kilobytes, so 552 means a full mailbox. 550 and 554 after the content concern the content."""

_AT_START: Final = re.compile(r"[#(\[]?([45])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_WITH_HASH: Final = re.compile(r"#([45])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
"""qmail's format: ``sorry, no mailbox here by that name. (#5.1.1)``."""

_WRITTEN: Final = re.compile(
    r"(?:given up after \d+ days; last: )?(?P<code>[2-5]\d\d) (?P<text>.*) \((?P<stage>MAIL FROM|RCPT TO|DATA)\)",
    re.DOTALL,
)


def enhanced_status(reply: Reply) -> tuple[int, int, int] | None:
    """The enhanced status code of a reply, as (5, 1, 1); None if it has none, or one of another class than its basic code."""
    found = _AT_START.match(reply.text) or _WITH_HASH.search(reply.text)
    if found is None or int(found[1]) != reply.code // 100:
        return None
    return int(found[1]), int(found[2]), int(found[3])


def cause_of(reply: Reply) -> Cause:
    """Whether another address may help a mail that ended with this reply, refused (5xx) or given up (4xx)."""
    return Cause.ADDRESS if _about_recipient(reply) else Cause.SERVER


def _about_recipient(reply: Reply) -> bool:
    if reply.stage is Stage.SENDER:
        return False
    status = enhanced_status(reply)
    if status is None or status[1] == 0:  # subject 0 is undefined
        return reply.code in (_BASIC_AT_RECIPIENT if reply.stage is Stage.RECIPIENT else _BASIC_AT_CONTENT)
    _, subject, detail = status
    if subject == 5 and reply.stage is Stage.RECIPIENT:
        return detail in _SYNTAX_AT_RECIPIENT
    return detail in _ABOUT_RECIPIENT.get(subject, frozenset())


def read_reply(words: str) -> Reply | None:
    """The server's reply in a row's ``last_reply``; None if that text is our own."""
    found = _WRITTEN.fullmatch(one_line(words))
    return None if found is None else Reply(Stage(found["stage"]), int(found["code"]), found["text"])


def cause_in(words: str) -> Cause:
    """Why a delivery failed, from its ``last_reply``: for rows of versions without ``failed_for``."""
    own = _OWN_WORDS.get(words)
    if own is not None:
        return own
    if words.startswith(NOT_SENT):
        return Cause.WITHHELD
    reply = read_reply(words)
    return Cause.SERVER if reply is None else cause_of(reply)
