"""Who may call what: the administrators' bearer tokens and the partners' API keys, each with a name, some bound to
organisations.

Wrong credentials are limited per network. What decides about a network that is over its rate:

* Beyond the rate nothing is compared with the secrets: a guess is answered with 429, right or wrong. If right ones were
  let through, a guesser would learn as much from 429 as from 401, and the limit would be none.
* An honest client may share its network with a guesser: an office, a mobile operator, or everyone, where a proxy is not
  listed in ``INGEST_TRUSTED_PROXIES``. Anyone could shut it out for as long as the guessing goes on. So credentials that
  were right *from this network* within a day are still compared there, and those alone. What a guesser in that network
  can still find out in this way is the one secret that is used next to it, at the speed of HTTP: with 16 characters that
  were drawn at random this takes longer than anyone has.
* Others with right credentials in that network wait until the guessing ends, and at most one period of the rate longer.
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
"""Networks that are remembered, those that were seen last. Only right credentials add to them."""


class Role(Enum):
    """What credentials stand for."""

    ADMIN = "admin"
    PARTNER = "partner"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials came with a request."""

    name: str
    """As the settings name them: who acted, in the audit log."""
    role: Role
    organisations: frozenset[str] | None = None
    """Slugs of those whose petitions they are for; None: all."""

    def may(self, organisation: str) -> bool:
        """Whether they are for this organisation's petitions."""
        return self.organisations is None or organisation in self.organisations


class Access:
    """Knows the credentials, as hashes: comparing those takes the same time whatever was sent, lengths included.

    Args:
        clients: Tells the network of a request.
        clock: Seconds, rising.
    """

    def __init__(self, settings: Settings, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        known = [(one, Role.ADMIN) for one in settings.administrators()]
        known += [(one, Role.PARTNER) for one in settings.partners()]
        self._known = [(_digest(one.secret.encode()), Caller(one.name, role, one.organisations)) for one, role in known]
        self._clients, self._clock = clients, clock
        self._wrong = ClientRate(settings.wrong_credentials_rate, clock)
        self._proven = Proven(clock)

    def caller(self, headers: Mapping[bytes, bytes], scope: Mapping[str, Any]) -> Caller | None:
        """Who calls; None for anyone without credentials.

        Args:
            headers: Names in lower case, as ASGI gives them.
            scope: The ASGI scope, for the network that the request comes from.

        Raises:
            Problem: 400, credentials of both kinds were sent; 401, of those that nobody has; 429, too many of those.
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
        for secret, caller in known:  # all of them, always: no early exit to be timed
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
        """Who calls, with any credentials.

        Raises:
            Problem: 401, and what `caller` raises.
        """
        caller = self.caller(headers, scope)
        if caller is None:
            raise problem("credentials_required")
        return caller


class Proven:
    """Which credentials were right from which network within `_PROVEN_SECONDS`.

    Args:
        clock: Seconds, rising.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._networks: OrderedDict[str, dict[bytes, tuple[Caller, float]]] = OrderedDict()

    def add(self, network: str, digest: bytes, caller: Caller) -> None:
        """These credentials were right just now."""
        self._networks.setdefault(network, {})[digest] = (caller, self._clock())
        self._networks.move_to_end(network)
        if len(self._networks) > _PROVEN_NETWORKS:
            self._networks.popitem(last=False)

    def of(self, network: str) -> list[tuple[bytes, Caller]]:
        """Those that were right from this network, with whose they are."""
        since = self._clock() - _PROVEN_SECONDS
        proven = self._networks.get(network, {})
        return [(digest, caller) for digest, (caller, seen) in proven.items() if seen >= since]


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
