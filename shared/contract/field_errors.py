"""Errors of the fields that pydantic has refused, without the values that were sent."""

from __future__ import annotations

from pydantic import ValidationError

from shared.contract.form_errors import FORM_ERRORS, sentence

_CODES = {
    "string_too_long": "too_long",
    "string_type": "not_text",
    "bool_type": "not_true_or_false",
}
"""Our codes for pydantic's types of errors. Its other types are used as codes: ``missing``, ``json_invalid``, …"""

_UUID = "Input should be a valid UUID"
"""pydantic's own message goes on with a character of the input."""


def field_errors(error: ValidationError) -> list[dict[str, str]]:
    """Return one entry per invalid field, without the value that was sent: ``field``, ``code``, and ``problem``, a sentence.

    The code is stable: one of `shared.contract.form_errors.FORM_ERRORS`, that of a custom rule, or pydantic's error type.
    """
    return [
        _field_error(".".join(str(part) for part in item["loc"]) or "(body)", item["type"], item["msg"])
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _field_error(field: str, kind: str, message: str) -> dict[str, str]:
    code = _CODES.get(kind, kind)
    if kind == "uuid_parsing":
        problem = _UUID
    elif code in FORM_ERRORS and code != "too_long":
        problem = sentence(field, code)
    else:  # a custom rule's message, or pydantic's, which says how long a text may be
        problem = message.removeprefix("Value error, ")
    return {"field": field, "code": code, "problem": problem}
