"""The sign form as browsers send it: its fields as text, decoded with the declared charset, which is never guessed.

ingest reads it to accept the signature; the pages read it to show a refused form again.

Browsers send a form in the encoding of its page. They name it in a field ``_charset_`` if the form has one (HTML Standard,
"Constructing the entry list"; RFC 7578 section 4.6); other clients name it in the Content-Type of the request or of a part.
Without a declaration it is UTF-8. Starlette ignores ``_charset_`` and the charset of a part, and decodes invalid input as
Latin-1; so only the parser of multipart bodies comes from a library (python_multipart).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.web.content_type import charset, media_type

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM: Final = b"application/x-www-form-urlencoded"
MULTIPART: Final = b"multipart/form-data"


class FormUnreadable(Exception):
    """The body is not such a form, or not in the declared charset. The message tells the sender what to do."""


_MOST_FIELDS: Final = 50
_TICKED: Final = frozenset({"on", "true", "1", "yes"})
_DECLARES: Final = "_charset_"

_CODECS: Final[Mapping[str, str]] = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    # For ISO 8859-1 and -9, browsers use the Windows code pages, which have more characters (Encoding Standard).
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "iso-8859-9": "cp1254",
    **{f"iso-8859-{part}": f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    **{f"windows-{page}": f"cp{page}" for page in (874, *range(1250, 1259))},
    "koi8-r": "koi8_r",
    "koi8-u": "koi8_u",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "euc-jp": "euc_jp",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "euc-kr": "cp949",
}
"""Python's codec for each charset, by the names that forms use. No others are accepted: some of Python's codecs take
quadratic time, and some are not text encodings."""


def form_fields(content_type: bytes, body: bytes) -> dict[str, str] | None:
    """Return the fields of a form, or None if the Content-Type is not a form's. The last value of a repeated name applies.

    Raises:
        FormUnreadable: the form cannot be read.
    """
    kind = media_type(content_type)
    if kind == FORM:
        return urlencoded(body, charset(content_type))
    if kind == MULTIPART:
        return _multipart(content_type, body)
    return None


def urlencoded(body: bytes, declared: bytes | None) -> dict[str, str]:
    """Return the fields of ``application/x-www-form-urlencoded``. The last value of a repeated name applies.

    Args:
        body: The request's body.
        declared: The charset of the Content-Type.

    Raises:
        FormUnreadable: the form cannot be read.
    """
    named = declared
    if b"_charset_=" in body:
        fields = _fields(body, "latin-1")
        named = fields.get(_DECLARES, "").encode("latin-1", "replace") or declared
    return _fields(body, _codec(named))


def _fields(body: bytes, codec: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, encoding=codec, errors="strict"
        )
    except UnicodeError:
        raise _unreadable(codec) from None
    except ValueError:
        raise FormUnreadable(f"The form has more than {_MOST_FIELDS} fields.") from None
    return dict(pairs)


def _multipart(content_type: bytes, body: bytes) -> dict[str, str]:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise FormUnreadable("The form's Content-Type names no boundary.")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, _NoForm):
        parts.whole = False
    if not parts.whole:
        raise FormUnreadable(f"The form could not be read, or holds files, or over {_MOST_FIELDS} fields.")
    named = next((part.data for part in parts.found if part.name == _DECLARES.encode()), b"") or charset(content_type)
    return {_decoded(part.name, named): _decoded(part.data, part.charset or named) for part in parts.found}


def submission_fields(fields: Mapping[str, str]) -> dict[str, object]:
    """Convert a form's fields to those of a submission: an empty text is omitted, and a ticked box becomes true."""
    given: dict[str, object] = {name: text for name, value in fields.items() if (text := value.strip())}
    given["consent"] = str(given.get("consent", "")).lower() in _TICKED
    return given


class _NoForm(Exception):
    """The multipart body is not a sign form."""


@dataclass(slots=True)
class _Part:
    """One field of a form, as bytes."""

    name: bytes = b""
    charset: bytes | None = None
    data: bytes = b""


@dataclass(slots=True)
class _Parts:
    """Collects the parser's results. The body is complete, so that names and values come in few pieces."""

    found: list[_Part] = field(default_factory=list)
    whole: bool = False
    """Whether the form is complete."""
    _header: bytes = b""
    _value: bytes = b""

    def callbacks(self) -> MultipartCallbacks:
        """Return the parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.found) == _MOST_FIELDS:
            raise _NoForm
        self.found.append(_Part())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.found[-1].data += data[start:end]

    def _header_begin(self) -> None:
        self._header = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        header = self._header.lower()
        if header == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" in options or b"name" not in options:
                raise _NoForm
            self.found[-1].name = options[b"name"]
        elif header == b"content-type":
            self.found[-1].charset = parse_options_header(self._value)[1].get(b"charset")

    def _end(self) -> None:
        self.whole = True


def _decoded(data: bytes, named: bytes | None) -> str:
    codec = _codec(named)
    try:
        return data.decode(codec)
    except UnicodeError:
        raise _unreadable(codec) from None


def _codec(named: bytes | None) -> str:
    """Return Python's codec for a charset.

    Raises:
        FormUnreadable: the charset is not supported.
    """
    if not named:
        return "utf-8"
    codec = _CODECS.get(named.decode("latin-1").strip().lower())
    if codec is None:
        raise FormUnreadable("The form declares a charset that is not read here: send UTF-8.")
    return codec


def _unreadable(codec: str) -> FormUnreadable:
    if codec == "utf-8":
        return FormUnreadable("The form's text is not UTF-8: send UTF-8, or declare its charset.")
    return FormUnreadable("The form's text is not in the charset that it declares: send UTF-8.")
