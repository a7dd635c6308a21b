"""Finds the client of a request for rate limits, also behind reverse proxies.

A proxy connects for many clients and names each in a header, but any client can send that header too. So it is trusted
only from proxies that the operator listed, and only from its right end, where each proxy appends the address from which it
got the request. The first address from the right that is not a listed proxy is the client; the rest may be made up.
uvicorn's ProxyHeadersMiddleware does not read ``Forwarded``, and runs for every request, not only for rate-limited ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

_NO_ADDRESS: Final = "local"  # a Unix socket: all its users are one client
_HEADER_END: Final = 2_048
"""Bytes of the header that are read, from its end: about 50 proxies in a row. Clients can make the rest of any length."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Clients:
    """Finds a request's client.

    Args:
        proxies: The listed proxies. Empty: the connecting address is the client.
        header: The header in which they name clients. Only one, because a proxy passes the other on unchanged.
    """

    def __init__(
        self,
        proxies: list[Network] | None = None,
        header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for",
    ) -> None:
        self._proxies, self._header = proxies or [], header.encode()
        self._elements = _addresses_of_forwarded if header == "forwarded" else _addresses_of_x_forwarded_for
        self._is_proxy = lru_cache(maxsize=4_096)(self._is_listed)

    def of(self, scope: Mapping[str, Any]) -> str:
        """The client of a request, as rate limits count it; see `client_of`.

        Args:
            scope: The ASGI scope.
        """
        address: tuple[str, int] | None = scope["client"]
        if not self._proxies or address is None or not self._is_proxy(address[0]):
            return client_of(address)
        text = b",".join(value for name, value in scope["headers"] if name == self._header).decode("latin-1")
        client = address[0]
        for named in self._elements(text):
            if _address(named) is None:
                break  # "unknown", or made up: all clients that the last proxy does not name are one client
            client = named
            if not self._is_proxy(named):
                break
        return client_of((client, 0))

    def _is_listed(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._proxies
        )


def client_of(address: tuple[str, int] | None) -> str:
    """The client of an address: an IPv4 address, or an IPv6 /64, the usual allocation of a household or server."""
    if address is None:
        return _NO_ADDRESS
    host = address[0]
    if ":" not in host:
        return host
    found = _address(host)
    if isinstance(found, ipaddress.IPv6Address):
        return found.packed[:8].hex()
    return host if found is None else str(found)


def parse_networks(text: str) -> list[Network]:
    """Read addresses and networks, comma separated.

    Raises:
        ValueError: one is neither, or is the whole internet.
    """
    networks = [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("everyone would be a proxy, and could call themselves anyone")
    return networks


def _address(text: str) -> Address | None:
    """Parse an address, with IPv4-mapped IPv6 addresses as IPv4; None if it is not an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 clients as ::ffff:192.0.2.1, which would all share one /64.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _addresses_of_x_forwarded_for(header: str) -> Iterator[str]:
    """The addresses from right to left. Some proxies add the port."""
    for element in _from_the_right(header):
        yield _without_port(element.strip())


def _addresses_of_forwarded(header: str) -> Iterator[str]:
    """The ``for=`` of each element of RFC 7239, from right to left."""
    for element in _from_the_right(header):
        pairs = [pair.partition("=") for pair in element.split(";")]
        named = [value.strip().strip('"') for name, _, value in pairs if name.strip().lower() == "for"]
        yield _without_port(named[0]) if len(named) == 1 else ""


def _from_the_right(header: str) -> Iterator[str]:
    """The elements between commas outside quotes, from right to left, so that a quote that a client left open does not
    swallow what proxies appended."""
    text = header[-_HEADER_END:]
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            quoted = not quoted
        elif text[at] == "," and not quoted:
            yield text[at + 1 : end]
            end = at
    if len(text) == len(header):  # otherwise the first element is cut off
        yield text[:end]


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, _ = text.partition(":")
    return host if colon and ":" not in text[len(host) + 1 :] else text
