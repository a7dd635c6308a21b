"""Replies of an SMTP server, and their meaning for the mail. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """The command of the mail transaction that a reply answers."""

    SENDER = "MAIL FROM"
    RECIPIENT = "RCPT TO"
    CONTENT = "DATA"


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's final reply to a mail, and the stage at which it came."""

    stage: Stage
    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text} ({self.stage.value})"


class Verdict(Enum):
    """The consequence of a server's reply for a mail."""

    SENT = "sent"
    DEFERRED = "deferred"
    """Try this mail again later."""
    REFUSED = "refused"
    """Never try it again."""
    NOT_OURS = "server refuses us"
    """The server accepts nothing from us. This is no fault of the mail or its target: all mails wait until it is fixed."""


def verdict(reply: Reply) -> Verdict:
    """Classify a reply by its first digit (RFC 5321 section 4.2.1), with two exceptions.

    A permanent refusal of the *sender*, and 530 (authentication required, RFC 4954 section 6) at any stage, concern this
    installation's account at its relay. To fail every delivery for a wrong password would lose them all.
    """
    if 200 <= reply.code < 300:
        return Verdict.SENT
    if reply.code == 530 or (reply.code >= 500 and reply.stage is Stage.SENDER):
        return Verdict.NOT_OURS
    if reply.code >= 500:
        return Verdict.REFUSED
    return Verdict.DEFERRED  # 4xx, and replies that are not SMTP, which may be transient
