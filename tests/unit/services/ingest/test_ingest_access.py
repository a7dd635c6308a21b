"""Who may call what."""

import pytest

from services.ingest.access import Access, Role
from services.ingest.settings import Settings
from shared.http import Problem

ADMIN, KEY, OTHER = "admin-token-of-tests", "first-key-of-tests", "second-key-of-tests"


@pytest.fixture
def access() -> Access:
    return Access(Settings(signer_pepper="p" * 16, admin_token=ADMIN, api_keys=f"{KEY}, {OTHER}"))


def bearer(secret: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {secret}".encode()}


def test_the_administrator_and_partners_are_known_by_what_they_send(access):
    assert access.role(bearer(ADMIN)) is Role.ADMIN
    assert access.role(bearer(KEY)) is Role.PARTNER
    assert access.role({b"x-api-key": OTHER.encode()}) is Role.PARTNER
    assert access.role({b"authorization": f"bearer {KEY}".encode()}) is Role.PARTNER
    assert access.role({}) is None


@pytest.mark.parametrize(
    "headers",
    [
        bearer("wrong"),
        bearer(""),
        bearer(KEY[:-1]),
        bearer(f"{KEY}, {OTHER}"),
        {b"x-api-key": b""},
        {b"authorization": b"Basic YTpi"},
        {b"authorization": ADMIN.encode()},
        {b"x-api-key": b"\xff\xfe"},
    ],
)
def test_credentials_that_nobody_has_are_refused_and_asked_for_again(access, headers):
    with pytest.raises(Problem) as refusal:
        access.role(headers)
    assert refusal.value.status == 401
    assert "www-authenticate" in refusal.value.headers


def test_a_call_for_partners_takes_no_anonymous_callers(access):
    with pytest.raises(Problem) as refusal:
        access.require({})
    assert refusal.value.status == 401
    assert access.require(bearer(KEY)) is Role.PARTNER
    assert access.require(bearer(ADMIN)) is Role.ADMIN


def test_a_call_for_the_administrator_takes_no_partners(access):
    with pytest.raises(Problem) as refusal:
        access.require_admin(bearer(KEY))
    assert refusal.value.status == 403
    access.require_admin(bearer(ADMIN))
