"""The sign form as browsers send it: its fields as text, decoded by the charset that it declares and never by guess.

ingest reads it to take the signature, and the pages to show it again when it was refused.

Browsers send a form in the encoding of its page. Which one that is, they say in a field named ``_charset_`` if the form has
one (HTML Standard, "Constructing the entry list"; RFC 7578 section 4.6); other clients say it in the Content-Type, of the
request or of a part. Where nothing is declared it is UTF-8. Starlette reads no ``_charset_`` and no charset of a part, and
takes what it cannot decode for Latin-1; so only the parser of multipart bodies is a library's here (python_multipart).
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
    """The body is no such form, or not in the charset that it declares. Its text says what to do, for the sender."""


_MOST_FIELDS: Final = 50
_TICKED: Final = frozenset({"on", "true", "1", "yes"})
_DECLARES: Final = "_charset_"

_CODECS: Final[Mapping[str, str]] = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    # A browser that is told ISO 8859-1 or -9 uses the encoding of Windows, which has more (Encoding Standard).
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
"""Charsets by the names that forms use, and Python's codec for each. No others: some of Python's codecs take time that grows
with the square of the length, and some are no encodings of text."""


def form_fields(content_type: bytes, body: bytes) -> dict[str, str] | None:
    """The fields of a form; of a name that is there twice, the last. None: the Content-Type is no form's.

    Raises:
        FormUnreadable: it cannot be read.
    """
    kind = media_type(content_type)
    if kind == FORM:
        return urlencoded(body, charset(content_type))
    if kind == MULTIPART:
        return _multipart(content_type, body)
    return None


def urlencoded(body: bytes, declared: bytes | None) -> dict[str, str]:
    """The fields of ``application/x-www-form-urlencoded``; of a name that is there twice, the last.

    Args:
        declared: The charset of the Content-Type.

    Raises:
        FormUnreadable: it cannot be read.
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
    """A form says everything in text: empty means not given, and a box that is ticked is there at all."""
    given: dict[str, object] = {name: text for name, value in fields.items() if (text := value.strip())}
    given["consent"] = str(given.get("consent", "")).lower() in _TICKED
    return given


class _NoForm(Exception):
    """What is being read is no form of a signer."""


@dataclass(slots=True)
class _Part:
    """One field of a form, as bytes."""

    name: bytes = b""
    charset: bytes | None = None
    data: bytes = b""


@dataclass(slots=True)
class _Parts:
    """Takes what the parser finds: bytes of a body that is all there, so that names and values come in few pieces."""

    found: list[_Part] = field(default_factory=list)
    whole: bool = False
    """Whether the form came to its end."""
    _header: bytes = b""
    _value: bytes = b""

    def callbacks(self) -> MultipartCallbacks:
        """As the parser wants them."""
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
    """Python's codec for a charset.

    Raises:
        FormUnreadable: it is none of those that are read.
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
