"""What somebody has typed into the sign form, read from the form itself, to be shown to them again. It goes nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request

from services.tally.reading.refusals import FIELDS
from shared.web.sign_form import FormUnreadable, form_fields

FORM_BYTES: Final = 256 * 1024
"""Several times what ingest takes: also a form that was too large for ingest is shown again, to be shortened."""

_READ_SECONDS: Final = 10.0


async def typed_of(request: Request) -> Mapping[str, str]:
    """The fields of a form that was sent as ``urlencoded`` or ``multipart``; every one of `FIELDS`, empty if not given.

    Raises:
        FormUnreadable: it cannot be shown again: it is too large, too slow, or not what it declares.
        starlette.requests.ClientDisconnect: it never came to its end.
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
