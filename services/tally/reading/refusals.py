"""The texts for a person whose sign form ingest refused.

ingest answers such a form with 307 to the petition's page, with the refusal in the query: ``refused``, one ``e`` for each
invalid field (``field:code``), and ``wait`` in seconds. The browser then sends the same form to the page, which shows it
with its input. The query says nothing about the signer, and is never shown itself: it only selects texts from tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from starlette.datastructures import QueryParams

from shared.contract.form_errors import sentence

FIELDS: Final[Mapping[str, str]] = {
    "name": "Name",
    "email": "E-mail address",
    "country": "Country",
    "postcode": "Postcode",
    "comment": "Why do you sign?",
    "consent": "Consent",
}
"""The form's fields with their labels, in the order of the form."""

_LONGEST_WAIT_SECONDS: Final = 3_600


@dataclass(frozen=True, slots=True)
class Words:
    """The text of a refusal for people."""

    status: int
    heading: str
    text: str
    retry_after: int | None = None
    """Seconds to wait, unless ingest names others."""
    comes_back: bool = True
    """Whether it helps to send the form again."""


_NOT_TAKEN: Final = "Your signature was not taken"
_ONCE: Final = "Nothing was lost: what you typed is still here. Sending it twice does not count twice."
_OUR_SIDE: Final = f"Something on our side does not answer at the moment. {_ONCE}"
_FORM_UNREADABLE: Final = "Please look at what you typed, and send it again from this page."

REFUSALS: Final[Mapping[str, Words]] = {
    "invalid_fields": Words(
        422, "Please look at the form again", "Your signature was not taken yet. What is missing or not right:"
    ),
    "petition_unknown": Words(404, _NOT_TAKEN, "We do not know this petition.", comes_back=False),
    "petition_not_open_yet": Words(409, _NOT_TAKEN, "This petition is not open yet.", comes_back=False),
    "petition_paused": Words(
        409, _NOT_TAKEN, "This petition takes no signatures for the time being.", comes_back=False
    ),
    "petition_closed": Words(410, _NOT_TAKEN, "This petition has closed.", comes_back=False),
    "too_many_requests": Words(
        429, "That was a bit fast", f"Many forms have come from your network in a short time. {_ONCE}", 10
    ),
    "overloaded": Words(
        503, "Very many people are signing right now", f"We could not take your signature this second. {_ONCE}", 5
    ),
    "starting": Words(503, "One moment, please", f"We are just starting. {_ONCE}", 2),
    "petition_newer": Words(503, "One moment, please", f"This site is being updated. {_ONCE}", 5),
    "clock_wrong": Words(503, _NOT_TAKEN, _OUR_SIDE, 5),
    "kafka_away": Words(503, _NOT_TAKEN, _OUR_SIDE, 5),
    "internal_error": Words(500, _NOT_TAKEN, _OUR_SIDE, 5),
    "body_too_slow": Words(408, "That took too long", f"The form did not arrive in time. {_ONCE}", 1),
    "body_too_large": Words(
        413, "That is more than the form takes", "Please shorten what you typed, and send it again."
    ),
    "malformed_body": Words(400, "The form could not be read", _FORM_UNREADABLE),
    "unsupported_content_type": Words(415, "The form could not be read", _FORM_UNREADABLE),
    "unsupported_content_encoding": Words(415, "The form could not be read", _FORM_UNREADABLE),
}
"""By the name of the problem (``services.ingest.problems``): the page's text, with the same status."""

OTHER: Final = Words(400, _NOT_TAKEN, _FORM_UNREADABLE)
"""For a name that is not in the table: a newer ingest's, or one that was made up."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of a form, as the page shows it."""

    reason: str
    """The problem's name, or ``other``: a label of a metric."""
    words: Words
    errors: Mapping[str, str] = field(default_factory=dict)
    """A sentence by field, in the form's order."""
    wait: int | None = None
    """Seconds to wait before the form is sent again."""

    def without(self, name: str) -> Refusal:
        """The same refusal without errors of fields that this petition's form does not have."""
        return replace(self, errors={other: sentence for other, sentence in self.errors.items() if other != name})

    @property
    def text(self) -> str:
        """The texts of the page."""
        return self.words.text if self.errors or self.words is not REFUSALS["invalid_fields"] else OTHER.text

    @property
    def links(self) -> list[tuple[str, str, str]]:
        """``(field, label, sentence)`` of each invalid field."""
        return [(name, FIELDS[name], sentence) for name, sentence in self.errors.items()]

    @property
    def first(self) -> str | None:
        """The first invalid field, which gets the focus."""
        return next(iter(self.errors), None)


def refusal_of(query: QueryParams) -> Refusal:
    """The refusal that a query names. Whatever the query holds, only texts from the tables are used."""
    reason = query.get("refused", "")
    words = REFUSALS.get(reason, OTHER)
    found: dict[str, str] = {}
    for error in query.getlist("e"):
        name, _, code = error.partition(":")
        if name in FIELDS:
            found.setdefault(name, sentence(name, code))
    return Refusal(
        reason=reason if reason in REFUSALS else "other",
        words=words,
        errors={name: found[name] for name in FIELDS if name in found},
        wait=_seconds(query.get("wait", "")) or words.retry_after,
    )


def _seconds(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LONGEST_WAIT_SECONDS))):
        return None
    return min(int(text), _LONGEST_WAIT_SECONDS)
