"""Malicious and broken inputs: hypothesis strategies for the tests of every input.

Deterministic (`repeatable`): the inputs are the same in every run, so a new failure comes from a change of the code.
"""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CANARY: Final = "Qz7-canary-9xJ"
"""Part of nearly all inputs; no output of Groundswell may repeat it."""


def repeatable(examples: int) -> settings:
    """Settings of a test with `examples` inputs, the same in every run."""
    return settings(
        derandomize=True, deadline=None, max_examples=examples, database=None, suppress_health_check=list(HealthCheck)
    )


texts: Final = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "\0",
            CANARY,
            f"{CANARY}\r\nBcc: everyone@mail.example",
            f"{CANARY}\nSet-Cookie: a=b",
            f"<script>{CANARY}</script>",
            f"'\"><img src=x onerror={CANARY}>",
            f"{{{{ 7*7 }}}}{{% raw %}}{CANARY}",
            f"${{jndi:ldap://{CANARY}}}",
            f"'; DROP TABLE signatures; --{CANARY}",
            f"=cmd|' /C {CANARY}'!A0",
            f"../../../etc/passwd%00{CANARY}",
            f"javascript:{CANARY}",
            "\u202egnp.exe" + CANARY,
            "\u2066\u2067\u2028\u2029\x85\x7f\x1b[31m" + CANARY,
            "\ufeff\u200b\u200d\ufffe\uffff" + CANARY,
            "é" * 3_000 + CANARY,
            "\ufdfa" * 20,  # grows eighteenfold under NFKC
            "a\u0301\u0323" * 100,
            "🚆" * 500,
            "१२३",
            "İı",
        ]
    ),
    st.text(max_size=40),
    st.text(st.characters(max_codepoint=0x9F), max_size=40),
)
"""Text that is markup, a template, a header, a query, a path, a formula, another writing direction, or nothing."""

emails: Final = st.one_of(
    st.sampled_from(
        [
            f"{CANARY}@mail.example",
            f"{CANARY}@mail.example\r\nRCPT TO:<x@mail.example>",
            f'"{CANARY}@x"@mail.example',
            f"{CANARY}@[127.0.0.1]",
            f"{CANARY}@xn--a.example",
            f"{CANARY}@" + "a." * 120 + "example",
            f"{CANARY}@mail.example,other@mail.example",
            f"<{CANARY}@mail.example>",
            "ｘ＠ｍａｉｌ．ｅｘａｍｐｌｅ",
            f"{CANARY}@mail。example",
            f"{CANARY}+@gmail.com",
            "+@gmail.com",
            "@",
            f"{CANARY}@mail.example\0",
            f"{CANARY}@ß.example",
        ]
    ),
    texts,
)

scalars: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 0, -1, -0.0, 1e308, 5e-324]),
    st.floats(),
    texts,
    emails,
)
"""Every kind of JSON value, and the invalid numbers NaN and Infinity."""

values: Final = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def as_json(value: object) -> bytes:
    """As a careless client writes it: with NaN, and with surrogates as escapes."""
    return json.dumps(value, ensure_ascii=True, allow_nan=True).encode()


broken_json: Final = st.sampled_from(
    [
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 10_000,
        b'{"email": "\\ud800"}',
        b'{"email": "\\udfff\\ud800"}',
        b'{"email": "\xed\xa0\x80"}',
        b'{"email": "\xc0\x80"}',
        b'{"email": "a\x00b"}',
        b'{"email": 1' + b"0" * 5_000 + b"}",
        b'{"email": -Infinity, "name": NaN}',
        b'{"email": 1e999999999}',
        b'{"email": "a", "email": "b"}',
        b'{"__proto__": {}, "constructor": 1}',
        b"null",
        b"true",
        b'"text"',
        b"0",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """`document` with some of its values replaced, removed or added, at any depth."""
    root = {"": json.loads(json.dumps(document))}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        holder, key = draw(st.sampled_from(places))
        if draw(st.integers(0, 4)) == 0 and holder is not root:
            del holder[key]
        else:
            holder[key] = draw(values)
        if isinstance(holder, dict) and draw(st.integers(0, 5)) == 0:
            holder[draw(texts)] = draw(scalars)
    return root[""]


def _places(node: Any) -> Any:
    """Every place in a document: the object or list that holds it, and its key."""
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with bytes changed, cut out, doubled, or its end missing."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0 if data:
                data[at] = draw(st.integers(0, 255))
            case 1:
                data[at:at] = draw(st.binary(max_size=8))
            case 2:
                del data[at : at + draw(st.integers(1, 16))]
            case _:
                del data[at:]
    return bytes(data)
