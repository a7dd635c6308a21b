"""Who may call what: the administrator's bearer token and the partners' API keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from enum import Enum

from services.ingest.problems import problem
from services.ingest.settings import Settings, split


class Role(Enum):
    """What credentials stand for."""

    ADMIN = "admin"
    PARTNER = "partner"


class Access:
    """Knows the credentials, as hashes: comparing those takes the same time whatever was sent, lengths included."""

    def __init__(self, settings: Settings) -> None:
        known = [(settings.admin_token.get_secret_value(), Role.ADMIN)]
        known += [(key, Role.PARTNER) for key in split(settings.api_keys.get_secret_value())]
        self._known = [(_digest(secret.encode()), role) for secret, role in known]

    def role(self, headers: Mapping[bytes, bytes]) -> Role | None:
        """Who calls; None for anyone without credentials.

        Args:
            headers: Names in lower case, as ASGI gives them.

        Raises:
            Problem: 401, credentials were sent that nobody has.
        """
        presented = headers.get(b"x-api-key")
        if presented is None:
            authorization = headers.get(b"authorization")
            if authorization is None:
                return None
            scheme, _, presented = authorization.partition(b" ")
            if scheme.lower() != b"bearer":
                raise problem("credentials_wrong")
        digest = _digest(presented.strip())
        found: Role | None = None
        for known, role in self._known:  # all of them, always: no early exit to be timed
            if hmac.compare_digest(known, digest):
                found = role
        if found is None:
            raise problem("credentials_wrong")
        return found

    def require(self, headers: Mapping[bytes, bytes]) -> Role:
        """Who calls, with any credentials.

        Raises:
            Problem: 401.
        """
        role = self.role(headers)
        if role is None:
            raise problem("credentials_required")
        return role

    def require_admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse everyone but the administrator.

        Raises:
            Problem: 401, or 403 for a partner.
        """
        if self.require(headers) is not Role.ADMIN:
            raise problem("admin_only")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
