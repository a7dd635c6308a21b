"""Personal data and secrets of a run, and the search for them in wrong places."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.faults.sending.surge import Surge
    from tests.faults.world import World

SECRETS: Final = ("SIGNER_PEPPER", "ADMIN_TOKEN", "API_KEYS", "POSTGRES_URL")
"""Environment variables of the services that hold a secret."""

_EMAIL: Final = re.compile(r"[^\s\"'<>,;:()\[\]{}\\=/]+@([^\s\"'<>,;:()\[\]{}\\=/]+)")
_TWO_WORDS: Final = re.compile(r"(?=\b([^\W\d_]+ [^\W\d_]+)\b)")  # names overlap: "Dear Alma Ashberg"
_PASSWORD: Final = re.compile(r"://[^:/@]*:([^@/]+)@")


class PersonalData:
    """What was planted.

    Args:
        domains: e-mail domains of signers; an address at one of them is personal data, in any spelling.
        names: of signers.
        secrets: by name.
    """

    def __init__(self, domains: Collection[str], names: Collection[str], secrets: Mapping[str, str]) -> None:
        self._domains = frozenset(domain.lower() for domain in domains)
        self._names = frozenset(names)
        self._secrets = dict(secrets)

    @classmethod
    def of(cls, world: World, surge: Surge) -> PersonalData:
        """All personal data that this run's signers sent, and all secrets of this world's services."""
        people = [submission.person for submission in (*surge.before, *surge.submissions)]
        domains = {person.email.rpartition("@")[2] for person in people}
        secrets = {}
        for name in SECRETS:
            for value in world.environment[name].split(","):
                password = _PASSWORD.search(value)
                secrets[name] = password[1] if password else value
        return cls(domains, {person.name for person in people}, secrets)

    def find(self, content: bytes | str) -> str | None:
        """What is found in `content`, described without repeating it; None if nothing is."""
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        for name, secret in self._secrets.items():
            if secret in text:
                return f"the secret {name}"
        if "@" in text and any(domain in self._domains for domain in _domains(text)):
            return "a signer's e-mail address"
        if any(found in self._names for found in _TWO_WORDS.findall(text)):
            return "a signer's name"
        return None


def _domains(text: str) -> Iterable[str]:
    return (found.lower().rstrip(".") for found in _EMAIL.findall(text))
