"""Invisible characters: a name that consists only of them is not a name.

``isspace`` does not cover them, and ``isalpha`` takes some for letters (the fillers of Hangul). They are allowed inside
texts: names in Persian and in languages of India need U+200C and U+200D, emoji need variation selectors.
"""

from __future__ import annotations

import re
from typing import Final

# Default_Ignorable_Code_Point of Unicode 16.0 (unicode.org/Public/16.0.0/ucd/DerivedCoreProperties.txt), including its
# reserved code points. Python's unicodedata does not have this property.
_DEFAULT_IGNORABLE: Final = (
    r"\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Blank although no property says so: the Braille pattern without dots, and the interlinear annotation characters. Control
# characters are invisible too.
_BLANK_TOO: Final = r"\u2800\ufff9-\ufffb\x00-\x1f\x7f-\x9f"

INVISIBLE: Final = rf"\s{_DEFAULT_IGNORABLE}{_BLANK_TOO}"
"""All invisible characters, as the content of a character class in a regular expression."""

_NOTHING: Final = re.compile(rf"[{INVISIBLE}]*")

BLANKS: Final = "".join(character for code in range(0x3001) if (character := chr(code)).isspace()) + (
    "\u180e\u200b\u2060\u2800\u3164\ufeff\uffa0"
)
"""What is stripped from the ends of a text: blanks of all kinds. Joiners, selectors and tags are not among them, because
they belong to the character before them; nor are the directional marks."""


_INVISIBLE_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
"""The fillers of Hangul; there are no others."""


def shows_nothing(text: str) -> bool:
    """Return whether `text` has no visible character; true for an empty text."""
    if text[:1].isalnum() and text[0] not in _INVISIBLE_LETTERS:  # nearly every text
        return False
    return _NOTHING.fullmatch(text) is not None


def has_letter(text: str) -> bool:
    """Return whether `text` has a visible letter, of any script."""
    return any(character.isalpha() and character not in _INVISIBLE_LETTERS for character in text)
