"""Request bodies: reading them up to a limit, and parsing them into models. `shared.web.sign_form` parses forms."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.types import Receive

from services.ingest.problems import problem
from services.ingest.web.deadline import ANSWER_SECONDS
from shared.contract.field_errors import field_errors
from shared.web.content_type import charset, media_type
from shared.web.problems import Problem
from shared.web.sign_form import FORM, MULTIPART, FormUnreadable, form_fields, submission_fields

Model = TypeVar("Model", bound=BaseModel)

JSON: Final = b"application/json"
MERGE_PATCH: Final = b"application/merge-patch+json"

BOM: Final = b"\xef\xbb\xbf"
"""The byte order mark in UTF-8, which some programs put before a text; it is ignored (RFC 8259 section 8.1)."""

_UTF_8: Final = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
_NOT_ENCODED: Final = frozenset({b"", b"identity"})
_CODING: Final = re.compile(rb"[a-z0-9, _-]{1,40}")


class ClientDisconnected(Exception):
    """The client disconnected before its request was complete."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Read the whole body.

    Raises:
        Problem: 413, it is larger than `limit` bytes, by its Content-Length or as found while reading; 415, it is
            compressed.
        ClientDisconnected: the client disconnected before the end of the body.
    """
    if b"content-encoding" in headers:
        _require_plain(headers[b"content-encoding"].lower())
    announced = headers.get(b"content-length", b"")
    # A number with more digits than the limit is above it, and int() refuses one with thousands of digits.
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


def too_large(limit: int) -> Problem:
    """The refusal of a body over `limit` bytes."""
    return problem("body_too_large", detail=f"The body may have at most {limit:,} bytes.")


def _require_plain(coding: bytes) -> None:
    if coding.strip() in _NOT_ENCODED:
        return
    named = f"Content-Encoding {coding.decode()} is" if _CODING.fullmatch(coding) else "Content-Encoding is"
    raise problem("unsupported_content_encoding", detail=f"{named} not read here. Send the body as it is, without it.")


def content_type(headers: Mapping[bytes, bytes]) -> bytes:
    """The Content-Type; empty when there is none."""
    return headers.get(b"content-type", b"")


def require_utf8(content_type: bytes) -> None:
    """Require UTF-8 for JSON.

    Raises:
        Problem: 400, the Content-Type declares another encoding.
    """
    declared = charset(content_type)
    if declared is not None and declared not in _UTF_8:
        raise problem(
            "malformed_body", detail="JSON is read in UTF-8 only: encode it so, and send charset=utf-8 or none."
        )


async def read_json(headers: Mapping[bytes, bytes], receive: Receive, limit: int, kind: bytes = JSON) -> bytes:
    """Read the whole body of a call that takes one kind of JSON only, within `ANSWER_SECONDS`.

    Raises:
        Problem: 400, 408, 413 or 415.
        ClientDisconnected: the client disconnected before the end of the body.
    """
    sent = content_type(headers)
    if media_type(sent) != kind:
        refusal = problem("unsupported_content_type", detail=f"Send {kind.decode()}.")
        if kind == MERGE_PATCH:
            refusal.headers["accept-patch"] = kind.decode()  # RFC 5789, section 2.2
        raise refusal
    require_utf8(sent)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await read_body(headers, receive, limit)).removeprefix(BOM)
    except TimeoutError:
        raise problem("body_too_slow") from None


def read_form(headers: Mapping[bytes, bytes], body: bytes, model: type[Model]) -> Model:
    """Parse a body, JSON or an HTML form, into `model`.

    Raises:
        Problem: 400, the body does not match its Content-Type; 415, that type is not accepted; 422, fields are missing or
            invalid.
    """
    sent = content_type(headers)
    try:
        if media_type(sent) == JSON:
            require_utf8(sent)
            return model.model_validate_json(body.removeprefix(BOM))
        fields = form_fields(sent, body)
        if fields is not None:
            return model.model_validate(submission_fields(fields))
    except ValidationError as error:
        raise refusal_of(error) from None
    except FormUnreadable as error:
        raise problem("malformed_body", detail=str(error)) from None
    raise problem(
        "unsupported_content_type",
        detail=f"Send {JSON.decode()}, {FORM.decode()} or {MULTIPART.decode()}.",
    )


def refusal_of(error: ValidationError) -> Problem:
    """400 if the JSON could not be parsed, else 422 with one entry per invalid field."""
    if any(item["type"] == "json_invalid" for item in error.errors(include_url=False, include_input=False)):
        return problem("malformed_body", detail="The body is not valid JSON in UTF-8.")
    return problem("invalid_fields", errors=field_errors(error))
