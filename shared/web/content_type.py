"""Parses Content-Type: the media type and the charset.

python_multipart's `parse_options_header` takes three times as long, and this is parsed for every signature.
"""

from __future__ import annotations

import re
from typing import Final

_CHARSET: Final = re.compile(rb";\s*charset\s*=\s*(?:\"([^\"]*)\"|([^\s;]*))", re.IGNORECASE)


def media_type(content_type: bytes) -> bytes:
    """Return the media type without its parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower()


def charset(content_type: bytes) -> bytes | None:
    """Return the declared charset, in lower case, or None."""
    if b";" not in content_type:
        return None
    found = _CHARSET.search(content_type)
    return None if found is None else (found[1] or found[2] or b"").lower()
