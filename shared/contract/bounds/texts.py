"""Texts: how long they may be, and the one form in which they are validated, stored and published.

A text is cleaned before it is validated: blanks at its ends are stripped (of all scripts, and those of zero width), line
breaks become ``\\n``, and characters take their composed form (NFC). Its length is what the signer sees: a line break is
one character, and so is a letter with its accents. Cleaning is idempotent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from shared.contract.bounds.invisible import BLANKS, shows_nothing

MOST_CHARACTERS: Final[Mapping[str, int]] = {"email": 320, "name": 200, "country": 2, "postcode": 20, "comment": 2_000}
"""Maximum length of each field of a signer's form, in characters. E-mail: 64 (local part) + 1 + 255 (domain), RFC 5321
section 4.5.3.1."""

MOST_TITLE: Final = 300
MOST_TEXT: Final = 50_000
MOST_OFFICE: Final = 200
"""The name of an organisation or of a target."""
MOST_PAUSE: Final = 300
"""The sentence for visitors of a paused petition."""
MOST_ACTOR: Final = 100
MOST_REASON: Final = 500

MOST_BYTES_A_CHARACTER: Final = 12
"""Maximum bytes of one character in a body: percent-encoded UTF-8, or two JSON escapes."""

SLUG: Final = r"[a-z0-9][a-z0-9-]{0,63}"
"""Ids that people choose, as a regular expression. They are part of URLs, record keys and Redis keys, so they hold nothing
that needs escaping in any of these."""

_SLUG: Final = re.compile(SLUG)

NOT_IN_A_LINE: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Characters that a one-line text may not hold, as the content of a character class in a regular expression: control
characters (C0, C1), line and paragraph separators, and the bidirectional overrides that make a text read as another.
Zero-width joiners are not among them: Persian and Indic names need them."""

NOT_IN_A_TEXT: Final = r"\x00-\x08\x0b\x0c\x0e-\x1f" + NOT_IN_A_LINE.removeprefix(r"\x00-\x1f")
"""Characters that a text of several lines may not hold: the same without tab and line breaks."""

COUNTRY_CODE: Final = r"[A-Z]{2}"
"""The form of a country's code (ISO 3166-1 alpha-2), as a regular expression."""

_COUNTRY_CODE: Final = re.compile(COUNTRY_CODE)
_NOT_IN_LINE: Final = re.compile(rf"[{NOT_IN_A_LINE}]")
_NOT_IN_TEXT: Final = re.compile(rf"[{NOT_IN_A_TEXT}]")
_LINE_BREAK: Final = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")  # including those of Word and of Unicode


_MORE_BLANKS: Final = frozenset(BLANKS)


class Unfit(ValueError):
    """A text that is refused.

    Attributes:
        code: The reason, one of `shared.contract.form_errors.FORM_ERRORS`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def is_slug(text: str) -> bool:
    """Return whether `text` is a valid slug; see `SLUG`."""
    return _SLUG.fullmatch(text) is not None


def is_country_code(text: str) -> bool:
    """Return whether `text` has the form of a country code; see `COUNTRY_CODE`."""
    return _COUNTRY_CODE.fullmatch(text) is not None


def clean_line(text: str, most: int) -> str:
    """Return a one-line text in the form that is stored.

    Args:
        text: The text as typed.
        most: Its maximum length in characters. NFC makes a few texts longer (U+0958 becomes two characters): a text that
            is too long only because of that is not composed.
    """
    if text.isascii() and text.isprintable():  # nearly every line; there is nothing to normalise
        return text.strip()
    return _composed(_stripped(text), most)


def clean_text(text: str, most: int) -> str:
    """Return a text of several lines in the form that is stored; see `clean_line`."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return _composed(_LINE_BREAK.sub("\n", _stripped(text)), most)


def checked_line(text: str, most: int, *, required: bool = False) -> str:
    """Clean a one-line text as `clean_line` does, and validate it.

    Raises:
        Unfit: it holds line breaks or control characters, is longer than `most`, or is required and has no visible
            character.
    """
    if text.isascii() and text.isprintable():
        line = text.strip()
        nothing = not line
    else:
        line = clean_line(text, most)
        if _NOT_IN_LINE.search(line):
            raise Unfit("not_one_line")
        nothing = shows_nothing(line)
    if len(line) > most:
        raise Unfit("too_long")
    if required and nothing:
        raise Unfit("blank")
    return line


def checked_text(text: str, most: int, *, required: bool = False) -> str:
    """Clean a text of several lines as `clean_text` does, and validate it.

    Raises:
        Unfit: it holds control characters, is longer than `most`, or is required and has no visible character.
    """
    if text.isascii() and text.isprintable():
        text = text.strip()
    else:
        text = clean_text(text, most)
        if _NOT_IN_TEXT.search(text):
            raise Unfit("control_characters")
    if len(text) > most:
        raise Unfit("too_long")
    if required and shows_nothing(text):
        raise Unfit("blank")
    return text


def clean_address(text: str) -> str:
    """Return an e-mail address in the form that is stored: full-width characters become plain ones, as mail servers
    require (NFKC); the case is kept."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return unicodedata.normalize("NFKC", text.strip(BLANKS)).strip(BLANKS)


def clean_code(text: str) -> str:
    """Return a code of letters, such as a country code, in upper case. A text that is not ASCII keeps its case: ß would
    become SS."""
    code = clean_address(text)
    return code.upper() if code.isascii() else code


def _stripped(text: str) -> str:
    text = text.strip()
    if text and (text[0] in _MORE_BLANKS or text[-1] in _MORE_BLANKS):
        return text.strip(BLANKS)
    return text


def _composed(text: str, most: int) -> str:
    composed = unicodedata.normalize("NFC", text)
    return text if len(composed) > most >= len(text) else composed
