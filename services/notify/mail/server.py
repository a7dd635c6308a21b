"""The address of the SMTP server, as the settings give it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"none": 25, "starttls": 587, "tls": 465}
_SCHEMES: Final[dict[str, Literal["none", "starttls", "tls"]]] = {
    "smtp": "none",
    "smtp+starttls": "starttls",
    "smtps": "tls",
}


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Address, encryption and credentials of the server."""

    host: str
    port: int
    encryption: Literal["none", "starttls", "tls"]
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> SmtpServer:
        """Parse ``smtp://``, ``smtps://`` or ``smtp+starttls://``, each ``[user:password@]host[:port]``.

        User and password may be percent-encoded.

        Raises:
            ValueError: it is not such a URL. The message never repeats it, because it may hold a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("host and port cannot be read; write smtp://host:port") from None
        encryption = _SCHEMES.get(parts.scheme)
        if encryption is None:
            raise ValueError("must begin with smtp://, smtps:// or smtp+starttls://")
        if not host:
            raise ValueError("names no host; write smtp://host:port")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must end after host and port; a /, ? or # in user or password is written %2F, %3F or %23")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if password is not None and username is None:
            raise ValueError("has a password without a user")
        return cls(host, port or _PORTS[encryption], encryption, username, password)
