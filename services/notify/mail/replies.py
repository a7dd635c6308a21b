"""What a mail server answers, and what the answer means for the mail. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """Which command of the mail transaction was answered."""

    SENDER = "MAIL FROM"
    RECIPIENT = "RCPT TO"
    CONTENT = "DATA"


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to a mail: the last one, at the stage where it ended."""

    stage: Stage
    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text} ({self.stage.value})"


class Verdict(Enum):
    """What becomes of a mail after a server's answer."""

    SENT = "sent"
    DEFERRED = "deferred"
    """Try this mail again later."""
    REFUSED = "refused"
    """Never try it again."""
    NOT_OURS = "server refuses us"
    """The server takes nothing from us. No fault of this mail or its target: all wait until that is put right."""


def verdict(reply: Reply) -> Verdict:
    """Read a reply by its first digit (RFC 5321 section 4.2.1), with two exceptions.

    A permanent refusal of the *sender*, and 530 (authentication required, RFC 4954 section 6) anywhere, are about this
    installation's account at its relay. Failing every delivery for a wrong password would lose them all.
    """
    if 200 <= reply.code < 300:
        return Verdict.SENT
    if reply.code == 530 or (reply.code >= 500 and reply.stage is Stage.SENDER):
        return Verdict.NOT_OURS
    if reply.code >= 500:
        return Verdict.REFUSED
    return Verdict.DEFERRED  # 4xx, and answers that are no SMTP: the next one may be
