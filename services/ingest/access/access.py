"""Access: the administrators' bearer tokens and the partners' API keys, each with a name, some limited to organisations.

Wrong credentials are rate limited per network. For a network beyond the rate:

* A guess is answered with 429, right or wrong, without comparing it with the secrets. If right ones were admitted, a guesser
  would learn as much from 429 as from 401, and the limit would have no effect.
* An honest client may share its network with a guesser: in an office, at a mobile operator, or behind a proxy that is not
  listed in ``INGEST_TRUSTED_PROXIES``. The guesser could lock it out for as long as the guessing goes on. So credentials that
  were right *from this network* within a day are still compared there, and only those. A guesser in that network can
  therefore guess only secrets that are in use there, at the speed of HTTP: with 16 random characters this is not feasible.
* Other clients with right credentials in that network wait until the guessing ends, and at most one period of the rate
  longer.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from services.ingest.problems import problem
from services.ingest.settings import Settings
from services.ingest.web.clients import Clients
from services.ingest.web.limits import ClientRate

_PROVEN_SECONDS: Final = 86_400.0
"""Most partners call at least once a day."""
_PROVEN_NETWORKS: Final = 1_024
"""Networks that are remembered, those seen last. Only right credentials add one."""


class Role(Enum):
    """The role that credentials give."""

    ADMIN = "admin"
    PARTNER = "partner"


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a request's credentials."""

    name: str
    """The name in the settings, which the audit log records."""
    role: Role
    organisations: frozenset[str] | None = None
    """Slugs of the organisations whose petitions the caller may act for; None: all."""

    def may(self, organisation: str) -> bool:
        """Whether the caller may act for this organisation's petitions."""
        return self.organisations is None or organisation in self.organisations


class Access:
    """Checks credentials. It keeps their hashes, so that the time of a comparison does not depend on what was sent.

    Args:
        settings: The credentials, and the rate limit of wrong ones.
        clients: Finds the network of a request.
        clock: Returns monotonic seconds.
    """

    def __init__(self, settings: Settings, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        known = [(one, Role.ADMIN) for one in settings.administrators()]
        known += [(one, Role.PARTNER) for one in settings.partners()]
        self._known = [(_digest(one.secret.encode()), Caller(one.name, role, one.organisations)) for one, role in known]
        self._clients, self._clock = clients, clock
        self._wrong = ClientRate(settings.wrong_credentials_rate, clock)
        self._proven = Proven(clock)

    def caller(self, headers: Mapping[bytes, bytes], scope: Mapping[str, Any]) -> Caller | None:
        """The caller; None for a request without credentials.

        Args:
            headers: Names in lower case, as ASGI gives them.
            scope: The ASGI scope, for the network that the request comes from.

        Raises:
            Problem: 400, credentials of both kinds were sent; 401, they are wrong; 429, too many wrong ones came from this
                network.
        """
        presented = headers.get(b"x-api-key")
        authorization = headers.get(b"authorization")
        if presented is None and authorization is None:
            return None
        if presented is not None and authorization is not None:
            raise problem("credentials_ambiguous")
        network = self._clients.of(scope)
        wait = self._wrong.overdrawn(network)
        known = self._proven.of(network) if wait else self._known
        scheme = b"bearer"
        if presented is None:
            scheme, _, presented = (authorization or b"").partition(b" ")
        digest = _digest(presented.strip())
        found: Caller | None = None
        for secret, caller in known:  # always all of them, against timing attacks
            if hmac.compare_digest(secret, digest):
                found = caller
        if found is None or scheme.lower() != b"bearer":
            if wait:
                raise problem("too_many_wrong_credentials", retry_after=int(wait) + 1)
            self._wrong.wait(network)
            raise problem("credentials_wrong")
        self._proven.add(network, digest, found)
        return found

    def require(self, headers: Mapping[bytes, bytes], scope: Mapping[str, Any]) -> Caller:
        """The caller of a request that must have credentials.

        Raises:
            Problem: 401, there are none; and those of `caller`.
        """
        caller = self.caller(headers, scope)
        if caller is None:
            raise problem("credentials_required")
        return caller


class Proven:
    """Remembers which credentials were right, by network, for `_PROVEN_SECONDS`.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._networks: OrderedDict[str, dict[bytes, tuple[Caller, float]]] = OrderedDict()

    def add(self, network: str, digest: bytes, caller: Caller) -> None:
        """Note that these credentials were right just now."""
        self._networks.setdefault(network, {})[digest] = (caller, self._clock())
        self._networks.move_to_end(network)
        if len(self._networks) > _PROVEN_NETWORKS:
            self._networks.popitem(last=False)

    def of(self, network: str) -> list[tuple[bytes, Caller]]:
        """The hashes that were right from this network, with their callers."""
        since = self._clock() - _PROVEN_SECONDS
        proven = self._networks.get(network, {})
        return [(digest, caller) for digest, (caller, seen) in proven.items() if seen >= since]


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
