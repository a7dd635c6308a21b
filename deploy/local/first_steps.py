"""First steps on a new stack: commands to copy, as printed by `groundswell up`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from deploy.local.state import StackState, write_private

PETITION_ID: Final = "night-bus"

PETITION: Final = (
    '{"title": "A night bus for Quillmere", "text": "The last bus leaves at nine.",'
    ' "organisation": {"slug": "quillmere-neighbours", "name": "Quillmere Neighbours"},'
    ' "targets": [{"target_id": "mayor", "name": "The mayor of Quillmere", "kind": "person",'
    ' "email": "mayor@quillmere.example"}], "milestones": [1, 100]}'
)
"""Its first milestone is reached by one signature, so that there is a mail to look at."""

SIGNATURE: Final = '{"email": "robin@mail.example", "name": "Robin Example", "country": "NL"}'

_FILE: Final = "env"


def commands(state: StackState) -> list[tuple[str, str]]:
    """Return the first steps, each with a command line or an address."""
    petition = f"{state.ingest_url}/v1/petitions/{PETITION_ID}"
    steps = [
        ("Make a petition", f"{_curl('PUT', petition, PETITION, f'Authorization: Bearer {state.admin_token}')}"),
        ("Sign it", _curl("POST", f"{petition}/signatures", SIGNATURE)),
        ("See it, live", f"{state.tally_url}/p/{PETITION_ID}"),
    ]
    if state.mailbox_url is not None:
        steps.append(("See the mail", f"{state.mailbox_url}/"))
    return [*steps, ("Kill something", "groundswell kill verify")]


def _curl(method: str, url: str, body: str, *headers: str) -> str:
    words = ["curl", "-X", method, url]
    for header in (*headers, "Content-Type: application/json"):
        words += ["-H", header]
    return shlex.join([*words, "-d", body])


def write_env(state: StackState, folder: Path) -> None:
    """Write the file `env`: addresses and tokens as variables of a shell, for its owner only.

    They are not exported: the addresses of the parts would make the next `groundswell up` in that shell use them.
    """
    variables = {
        "PUBLIC_INGEST_URL": state.ingest_url,
        "PUBLIC_PAGES_URL": state.tally_url,
        "MAILBOX_URL": state.mailbox_url or "",
        "ADMIN_TOKEN": state.admin_token,
        "API_KEY": state.api_key,
    }
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_private(folder / _FILE, f"# Written by `groundswell up`. Use it with: . {folder / _FILE}\n{text}")
