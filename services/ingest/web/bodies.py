"""Request bodies: read up to a limit, and turned into a model. How forms are read stands in `shared.web.sign_form`."""

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
"""U+FEFF in UTF-8, with which some programs begin a text. It is no part of it (RFC 8259 section 8.1)."""

_UTF_8: Final = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
_NOT_ENCODED: Final = frozenset({b"", b"identity"})
_CODING: Final = re.compile(rb"[a-z0-9, _-]{1,40}")


class ClientDisconnected(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        Problem: 413, it is larger than `limit` bytes; known from Content-Length, or found out while reading. 415, it is
            compressed.
        ClientDisconnected: it never came to its end.
    """
    if b"content-encoding" in headers:
        _require_plain(headers[b"content-encoding"].lower())
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
    """Refuse JSON in another encoding than its own.

    Raises:
        Problem: 400, the Content-Type declares another.
    """
    declared = charset(content_type)
    if declared is not None and declared not in _UTF_8:
        raise problem(
            "malformed_body", detail="JSON is read in UTF-8 only: encode it so, and send charset=utf-8 or none."
        )


async def read_json(headers: Mapping[bytes, bytes], receive: Receive, limit: int, kind: bytes = JSON) -> bytes:
    """The whole body of a call that takes one kind of JSON only, within `ANSWER_SECONDS`.

    Raises:
        Problem: 400, 408, 413 or 415.
        ClientDisconnected: it never came to its end.
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
    """What the signer sent, as JSON or as an HTML form.

    Raises:
        Problem: 400, the body is not what its type says; 415, that type is not taken; 422, fields are missing or wrong.
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
    """400 when the JSON could not be read at all, else 422 with one entry per wrong field."""
    if any(item["type"] == "json_invalid" for item in error.errors(include_url=False, include_input=False)):
        return problem("malformed_body", detail="The body is not valid JSON in UTF-8.")
    return problem("invalid_fields", errors=field_errors(error))
