"""What a Content-Type says: the kind of the body, and the charset of its text.

Ours, because python_multipart's `parse_options_header` takes three times as long, and this is read for every signature.
"""

from __future__ import annotations

import re
from typing import Final

_CHARSET: Final = re.compile(rb";\s*charset\s*=\s*(?:\"([^\"]*)\"|([^\s;]*))", re.IGNORECASE)


def media_type(content_type: bytes) -> bytes:
    """The type without its parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower()


def charset(content_type: bytes) -> bytes | None:
    """The charset that is declared, in lower case; None when there is none."""
    if b";" not in content_type:
        return None
    found = _CHARSET.search(content_type)
    return None if found is None else (found[1] or found[2] or b"").lower()
