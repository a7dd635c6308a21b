"""Request bodies: read up to a limit, and turned into a submission."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final
from urllib.parse import parse_qsl

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from services.ingest.admission import Submission
from services.ingest.intake import ANSWER_SECONDS
from services.ingest.problems import problem
from shared.http import field_errors

JSON: Final = b"application/json"
MERGE_PATCH: Final = b"application/merge-patch+json"
FORM: Final = b"application/x-www-form-urlencoded"
MULTIPART: Final = b"multipart/form-data"
NDJSON: Final = b"application/x-ndjson"

_MAX_FORM_FIELDS: Final = 50
_TICKED: Final = frozenset({"on", "true", "1", "yes"})


class ClientDisconnected(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        Problem: 413, it is larger than `limit` bytes; known from Content-Length, or found out while reading.
        ClientDisconnected: it never came to its end.
    """
    announced = headers.get(b"content-length", b"")
    # A number of more digits than the limit is above it, and one of thousands would be refused by int.
    digits = announced.lstrip(b"0") if announced.isdigit() else b""
    if len(digits) > len(str(limit)) or (digits and int(digits) > limit):
        raise too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunk if len(chunks) == 1 else b"".join(chunks)


def too_large(limit: int) -> Exception:
    """The refusal of a body over `limit` bytes."""
    return problem("body_too_large", detail=f"The body may have at most {limit:,} bytes.")


def media_type(headers: Mapping[bytes, bytes]) -> bytes:
    """The Content-Type without its parameters, in lower case; empty when there is none."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


async def read_json(headers: Mapping[bytes, bytes], receive: Receive, limit: int, kind: bytes = JSON) -> bytes:
    """The whole body of a call that takes one kind of JSON only, within `ANSWER_SECONDS`.

    Raises:
        Problem: 408, 413 or 415.
        ClientDisconnected: it never came to its end.
    """
    if media_type(headers) != kind:
        refusal = problem("unsupported_content_type", detail=f"Send {kind.decode()}.")
        if kind == MERGE_PATCH:
            refusal.headers["accept-patch"] = kind.decode()  # RFC 5789, section 2.2
        raise refusal
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await read_body(headers, receive, limit)
    except TimeoutError:
        raise problem("body_too_slow") from None


async def read_submission(headers: Mapping[bytes, bytes], body: bytes) -> Submission:
    """What the signer sent, as JSON or as an HTML form.

    Raises:
        Problem: 400, the body is not what its type says; 415, that type is not taken; 422, fields are missing or wrong.
    """
    kind = media_type(headers)
    try:
        if kind == JSON:
            return Submission.model_validate_json(body)
        if kind == FORM:
            return Submission.model_validate(_of_form(_urlencoded(body)))
        if kind == MULTIPART:
            return Submission.model_validate(_of_form(await _multipart(headers[b"content-type"], body)))
    except ValidationError as error:
        raise refusal_of(error) from None
    raise problem(
        "unsupported_content_type",
        detail=f"Send {JSON.decode()}, {FORM.decode()} or {MULTIPART.decode()}.",
    )


def refusal_of(error: ValidationError) -> Exception:
    """400 when the JSON could not be read at all, else 422 with one entry per wrong field."""
    if any(item["type"] == "json_invalid" for item in error.errors(include_url=False, include_input=False)):
        return problem("malformed_body", detail="The body is not valid JSON.")
    return problem("invalid_fields", errors=field_errors(error))


def _urlencoded(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError:  # not ASCII, not UTF-8 under the percent signs, or too many fields
        raise problem("malformed_body", detail="The form could not be read.") from None
    return dict(pairs)


async def _multipart(content_type: bytes, body: bytes) -> dict[str, str]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise problem("malformed_body", detail="The form's Content-Type names no boundary.")
    # Only the boundary goes on: a charset parameter would choose among all of Python's codecs, some of which take time
    # that grows with the square of the length. Browsers send forms in the page's encoding, which is UTF-8 here.
    quoted = boundary.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    headers = Headers({"content-type": f'multipart/form-data; boundary="{quoted}"'})
    try:
        form = await MultiPartParser(headers, stream(), max_files=0, max_fields=_MAX_FORM_FIELDS).parse()
    except MultiPartException:
        raise problem("malformed_body", detail="The form could not be read, or holds files.") from None
    return {name: value for name, value in form.items() if not isinstance(value, UploadFile)}


def _of_form(fields: Mapping[str, str]) -> dict[str, object]:
    """A form says everything in text: empty means not given, and a box that is ticked is there at all."""
    given: dict[str, object] = {name: text for name, value in fields.items() if (text := value.strip())}
    given["consent"] = str(given.get("consent", "")).lower() in _TICKED
    return given
