"""Reads the input of a refused sign form, to show it again to the person who sent it. It is not used for anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request

from services.tally.reading.refusals import FIELDS
from shared.web.sign_form import FormUnreadable, form_fields

FORM_BYTES: Final = 256 * 1024
"""Several times ingest's limit: a form that was too large for ingest is shown again, too, so that it can be shortened."""

_READ_SECONDS: Final = 10.0


async def typed_of(request: Request) -> Mapping[str, str]:
    """The input of a form that was sent as ``urlencoded`` or ``multipart``: all `FIELDS`, empty if not given.

    Raises:
        FormUnreadable: the form is too large, too slow, or does not match its Content-Type, and cannot be shown again.
        starlette.requests.ClientDisconnect: the client disconnected before the end of the form.
    """
    content_type = request.headers.get("content-type", "").encode("latin-1")
    try:
        async with asyncio.timeout(_READ_SECONDS):
            body = await _body(request)
    except TimeoutError:
        raise FormUnreadable(f"The form did not arrive within {_READ_SECONDS:g} seconds.") from None
    fields = form_fields(content_type, body)
    if fields is None:
        raise FormUnreadable("This is no form.")
    if not FIELDS.keys() & fields.keys():
        raise FormUnreadable("The form has none of the fields of a sign form.")
    return {name: fields.get(name, "") for name in FIELDS}


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise FormUnreadable(f"The form has more than {FORM_BYTES} bytes.")
    return bytes(body)
