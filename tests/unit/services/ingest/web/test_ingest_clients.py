"""The client of a request: the connecting address, unless a trusted proxy names another."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.ingest.settings import Settings
from services.ingest.web.clients import Clients, client_of, parse_networks

PROXIES = "10.0.0.0/24, 2001:db8:ffff::/64, 192.0.2.250"
Header = Literal["x-forwarded-for", "forwarded"]


def client(peer: str, *values: str | bytes, header: Header = "x-forwarded-for", proxies: str = PROXIES) -> str:
    """The client of a request from `peer` with these values of the proxies' header."""
    raw = [value.encode("latin-1") if isinstance(value, str) else value for value in values]
    scope: dict[str, Any] = {
        "client": (peer, 4711),
        "headers": [(b"host", b"x"), *((header.encode(), value) for value in raw), (b"accept", b"*/*")],
    }
    return Clients(parse_networks(proxies), header).of(scope)


def test_a_client_is_an_ipv4_address_or_an_ipv6_network() -> None:
    assert client_of(("192.0.2.7", 5)) == "192.0.2.7"
    assert client_of(("2001:db8:1:2::1", 5)) == client_of(("2001:db8:1:2:ffff::9", 6))
    assert client_of(("2001:db8:1:2::1", 5)) != client_of(("2001:db8:1:3::1", 5))
    assert client_of(("fe80::1%eth0", 5)) == client_of(("fe80::2", 5))
    assert client_of(None) == client_of(None)


def test_an_ipv4_client_of_a_socket_for_both_families_is_its_ipv4_address() -> None:
    """All of them share one /64, ::ffff:0:0."""
    assert client_of(("::ffff:192.0.2.7", 5)) == "192.0.2.7"
    assert client("::ffff:10.0.0.1", "192.0.2.9") == "192.0.2.9"


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_nobody_who_is_not_listed_is_believed(header: Header) -> None:
    said = "203.0.113.5" if header == "x-forwarded-for" else "for=203.0.113.5"
    assert client("192.0.2.7", said, header=header) == "192.0.2.7"
    assert client("10.0.0.7", said, header=header, proxies="") == "10.0.0.7"
    assert client("10.0.1.7", said, header=header) == "10.0.1.7"
    assert client("10.0.0.7", said, header=header) == "203.0.113.5"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("203.0.113.5:61000", "203.0.113.5"),
        ("2001:db8:1:2::9", "20010db800010002"),
        ("[2001:db8:1:2::9]:443", "20010db800010002"),
        # A client that writes the header itself: the proxy adds the true address behind it.
        ("1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.9, 203.0.113.5", "203.0.113.5"),
        # Two proxies in a row; a client that claims to be the inner one.
        ("203.0.113.5, 10.0.0.8", "203.0.113.5"),
        ("1.1.1.1, 10.0.0.9, 203.0.113.5, 192.0.2.250, 10.0.0.8", "203.0.113.5"),
        # Only proxies are named: the client is on the proxies' own network.
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        # Written by no trusted proxy, or unknown: the proxy that sent it is the client.
        ("", "10.0.0.7"),
        ("unknown", "10.0.0.7"),
        ("203.0.113.5, unknown", "10.0.0.7"),
        ("203.0.113.5, nonsense, 10.0.0.8", "10.0.0.8"),
        ("203.0.113.5,", "10.0.0.7"),
        ("\xff\xfe", "10.0.0.7"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(said: str, expected: str) -> None:
    assert client("10.0.0.7", said) == expected


def test_a_header_that_comes_in_several_lines_is_one_in_their_order() -> None:
    assert client("10.0.0.7", "1.1.1.1", "203.0.113.5") == "203.0.113.5"
    assert client("10.0.0.7", "203.0.113.5", "10.0.0.8") == "203.0.113.5"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("for=203.0.113.5", "203.0.113.5"),
        ('For="[2001:db8:1:2::9]:4711";proto=https;by=10.0.0.7', "20010db800010002"),
        ("for=1.1.1.1, for=203.0.113.5;host=a", "203.0.113.5"),
        ("for=203.0.113.5, for=10.0.0.8", "203.0.113.5"),
        # A quote that the client leaves open does not swallow what the proxy adds behind it.
        ('for="1.1.1.1, for=203.0.113.5', "203.0.113.5"),
        ('for="1.1.1.1;x=\\", for=203.0.113.5', "203.0.113.5"),
        ("for=_hidden", "10.0.0.7"),
        ("for=unknown", "10.0.0.7"),
        ("proto=https", "10.0.0.7"),
        ("for=203.0.113.5;for=1.1.1.1", "10.0.0.7"),
    ],
)
def test_the_header_of_rfc_7239_says_the_same(said: str, expected: str) -> None:
    assert client("10.0.0.7", said, header="forwarded") == expected


def test_only_the_configured_header_is_looked_at() -> None:
    scope: dict[str, Any] = {
        "client": ("10.0.0.7", 1),
        "headers": [(b"forwarded", b"for=1.1.1.1"), (b"x-forwarded-for", b"203.0.113.5"), (b"x-real-ip", b"1.1.1.1")],
    }
    assert Clients(parse_networks(PROXIES)).of(scope) == "203.0.113.5"
    assert Clients(parse_networks(PROXIES), "forwarded").of(scope) == "1.1.1.1"


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
@settings(derandomize=True, max_examples=150)
@given(hearsay=st.text(st.characters(max_codepoint=255), max_size=3_000))
def test_nothing_that_a_client_writes_changes_whom_it_counts_for(header: Header, hearsay: str) -> None:
    true = "203.0.113.5" if header == "x-forwarded-for" else "for=203.0.113.5"
    for values in ((f"{hearsay}, {true}",), (hearsay, true)):
        assert client("10.0.0.7", *values, header=header) == "203.0.113.5"


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "proxy.internal", "0.0.0.0/0", "::/0", "10.0.0.0/33", "*"])
def test_proxies_are_addresses_or_networks_and_not_everyone(wrong: str) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(signer_pepper="p" * 16, admin_token="a" * 16, trusted_proxies=wrong)


def test_a_header_of_any_length_costs_little() -> None:
    assert client("10.0.0.7", "10.0.0.8," * 100_000) == "10.0.0.7"
    assert client("10.0.0.7", ",".join(["10.0.0.8"] * 100_000)) == "10.0.0.8"
