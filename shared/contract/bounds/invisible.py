"""Characters that show nothing: a name made of them alone is no name.

``isspace`` does not know them, and some are letters to ``isalpha`` (the fillers of Hangul). They are allowed inside texts,
where they have their use: names in Persian and in languages of India need U+200C and U+200D, emoji need variation selectors.
"""

from __future__ import annotations

import re
from typing import Final

# Default_Ignorable_Code_Point of Unicode 16.0 (unicode.org/Public/16.0.0/ucd/DerivedCoreProperties.txt), which sets apart
# places for characters to come, too. Python's unicodedata does not have this property.
_DEFAULT_IGNORABLE: Final = (
    r"\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Blank without being called so: the Braille pattern without a dot, and the marks of interlinear annotation. Control
# characters show nothing either.
_BLANK_TOO: Final = r"\u2800\ufff9-\ufffb\x00-\x1f\x7f-\x9f"

INVISIBLE: Final = rf"\s{_DEFAULT_IGNORABLE}{_BLANK_TOO}"
"""As a class of characters in a regular expression."""

_NOTHING: Final = re.compile(rf"[{INVISIBLE}]*")

BLANKS: Final = "".join(character for code in range(0x3001) if (character := chr(code)).isspace()) + (
    "\u180e\u200b\u2060\u2800\u3164\ufeff\uffa0"
)
"""What is taken off the ends of a text: blanks of all kinds. Not the joiners, selectors and tags that belong to the
character before them, nor the marks of direction."""


_INVISIBLE_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
"""The only ones: fillers of Hangul."""


def shows_nothing(text: str) -> bool:
    """Whether nothing of `text` can be seen; true for no text at all."""
    if text[:1].isalnum() and text[0] not in _INVISIBLE_LETTERS:  # nearly every text
        return False
    return _NOTHING.fullmatch(text) is not None


def has_letter(text: str) -> bool:
    """Whether `text` holds a letter, of any script, that can be seen."""
    return any(character.isalpha() and character not in _INVISIBLE_LETTERS for character in text)
