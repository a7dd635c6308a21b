"""Validates the URLs of PostgreSQL and Redis, and finds those whose password would be sent unencrypted.

Messages repeat no part of a URL except the host: a password that was not escaped may be anywhere in it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ENCRYPTING: Final = ("require", "verify-ca", "verify-full")
_PRIVATE_NAMES: Final = ("localhost", "internal", "local", "lan", "home.arpa", "svc")


def is_near(host: str) -> bool:
    """Return whether `host` can only be on this machine or in a private network.

    Names are not resolved: a name without a dot (a container, a machine in the same network) and names under the suffixes
    for private networks count as near.
    """
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith(tuple(f".{ending}" for ending in _PRIVATE_NAMES))


def far(hosts: Iterable[str]) -> list[str]:
    """Return those of `hosts` that are not near (`is_near`), except Unix sockets."""
    return [host for host in hosts if host and not host.startswith("/") and not is_near(host)]


def without_port(address: str) -> str:
    """Return the host of ``host:port``, ``[v6]:port`` or a bare host."""
    address = address.strip()
    if address.startswith("["):
        return address.partition("]")[0].removeprefix("[")
    return address.rpartition(":")[0] if address.count(":") == 1 else address


# PostgreSQL -----------------------------------------------------------------------------------------------------------


def require_postgres_url(url: str) -> None:
    """Refuse a URL that asyncpg would refuse only on connecting, or that would be less secure than intended.

    Raises:
        ValueError: the URL is invalid; the message says why.
    """
    parts = _split(url, ("postgresql", "postgres"))
    options = _options(parts)
    mode = options.get("sslmode", os.environ.get("PGSSLMODE", "prefer"))
    if mode not in _SSL_MODES:
        raise ValueError(f"has an sslmode that is none of {', '.join(_SSL_MODES)}")
    if "sslrootcert" in options and mode not in _ENCRYPTING:
        raise ValueError("names an sslrootcert, but only sslmode=verify-full compares it and the host's name")
    if mode.startswith("verify-") and not _postgres_authorities(options):
        raise ValueError(
            f"has sslmode={mode} without sslrootcert=<file>: the certificates to trust, for instance this machine's"
            " /etc/ssl/certs/ca-certificates.crt"
        )
    for name in ("sslrootcert", "sslcrl", "sslcert", "sslkey"):
        if name in options:
            _require_pem(options[name], f"the file that {name} names")


def _postgres_authorities(options: dict[str, str]) -> bool:
    return (
        "sslrootcert" in options
        or "PGSSLROOTCERT" in os.environ
        or (Path("~/.postgresql/root.crt").expanduser().exists())
    )


def postgres_exposes_password_to(url: str) -> list[str]:
    """Return the hosts outside private networks to which the password may be sent unencrypted."""
    parts = _split(url, ("postgresql", "postgres"))
    options = _options(parts)
    if options.get("sslmode", os.environ.get("PGSSLMODE")) in _ENCRYPTING:
        return []
    login, _, hosts = parts.netloc.rpartition("@")
    if ":" not in login and "password" not in options:
        return []
    return far(without_port(host) for host in options.get("host", hosts).split(","))


# Redis ----------------------------------------------------------------------------------------------------------------


def require_redis_url(url: str) -> None:
    """Refuse a URL that redis-py would refuse only on connecting.

    Raises:
        ValueError: the URL is invalid; the message says why.
    """
    from redis.asyncio.connection import ConnectionPool, SSLConnection
    from redis.exceptions import RedisError

    parts = _split(url, ("redis", "rediss", "unix"))
    _options(parts)
    try:
        connection = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RedisError):
        hint = "" if parts.scheme == "rediss" else " (those that begin with ssl_ go with rediss://)"
        raise ValueError(f"has a parameter that redis-py does not take{hint}") from None
    if isinstance(connection, SSLConnection):
        try:
            connection.ssl_context.get()
        except (OSError, ValueError):
            raise ValueError("names certificates or keys (ssl_ca_certs, ssl_certfile, …) that cannot be read") from None


def redis_exposes_password_to(url: str) -> list[str]:
    """Return the hosts outside private networks to which the password may be sent unencrypted or unverified (TLS without a
    check of the certificate)."""
    parts = _split(url, ("redis", "rediss", "unix"))
    options = _options(parts)
    checked = options.get("ssl_cert_reqs", "required") == "required"
    if parts.scheme == "unix" or (parts.scheme == "rediss" and checked):
        return []
    if not parts.password and "password" not in options:
        return []
    return far([parts.hostname or ""])


# Both -----------------------------------------------------------------------------------------------------------------


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no address that can be read") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if parts.fragment:
        raise ValueError("has a #, which must be written %23 (and in user or password / as %2F, ? as %3F, @ as %40)")
    return parts


def _options(parts: SplitResult) -> dict[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError:
        raise ValueError("has a ? that no name=value follows (in user or password it is written %3F)") from None


def _require_pem(path: str, what: str) -> None:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{what} cannot be read: {error.strerror}") from None
    if "-----BEGIN " not in text:
        raise ValueError(f"{what} holds nothing in PEM form")
