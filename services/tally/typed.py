"""What somebody has typed into the sign form, read from the form itself, to be shown to them again. It goes nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from services.tally.refusals import FIELDS

FORM_BYTES: Final = 256 * 1024
"""Several times what ingest takes: also a form that was too large for ingest is shown again, to be shortened."""

_READ_SECONDS: Final = 10.0
_MAX_FIELDS: Final = 50
_UTF_8: Final = frozenset({"", "utf-8", "utf8", "us-ascii"})


class FormUnreadable(Exception):
    """The form is too large, too slow, or not in UTF-8: it cannot be shown again."""


async def typed_of(request: Request) -> Mapping[str, str]:
    """The fields of a form that was sent as ``urlencoded`` or ``multipart``; every one of `FIELDS`, empty if not given.

    Raises:
        FormUnreadable: it cannot be shown again.
        starlette.requests.ClientDisconnect: it never came to its end.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if options.get(b"charset", b"").decode("latin-1").strip().lower() not in _UTF_8:
        raise FormUnreadable
    try:
        async with asyncio.timeout(_READ_SECONDS):
            body = await _body(request)
    except TimeoutError:
        raise FormUnreadable from None
    if kind == b"application/x-www-form-urlencoded":
        fields = _urlencoded(body)
    elif kind == b"multipart/form-data":
        fields = await _multipart(options.get(b"boundary", b""), body)
    else:
        raise FormUnreadable
    if not FIELDS.keys() & fields.keys():
        raise FormUnreadable
    return {name: fields.get(name, "") for name in FIELDS}


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise FormUnreadable
    return bytes(body)


def _urlencoded(body: bytes) -> dict[str, str]:
    try:
        return dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
        )
    except ValueError:  # not UTF-8 under the percent signs, or too many fields
        raise FormUnreadable from None


async def _multipart(boundary: bytes, body: bytes) -> dict[str, str]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    if not boundary:
        raise FormUnreadable
    try:
        body.decode()  # what is not UTF-8, the parser would take for Latin-1
    except UnicodeDecodeError:
        raise FormUnreadable from None
    # Only the boundary goes on: a charset would choose among all of Python's codecs.
    quoted = boundary.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    headers = Headers({"content-type": f'multipart/form-data; boundary="{quoted}"'})
    parser = MultiPartParser(headers, stream(), max_files=0, max_fields=_MAX_FIELDS, max_part_size=FORM_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError):
        raise FormUnreadable from None
    return {name: value for name, value in form.items() if not isinstance(value, UploadFile)}
