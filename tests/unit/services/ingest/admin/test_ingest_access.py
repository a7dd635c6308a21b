"""Access to calls, and limits for those who guess credentials."""

from __future__ import annotations

import pytest

from services.ingest.access.access import Access, Caller, Role
from services.ingest.settings import Settings
from services.ingest.web.clients import Clients
from shared.web.problems import Problem

ADMIN, KEY, OTHER = "admin-token-of-tests", "first-key-of-tests", "second-key-of-tests"
WRONG = {b"x-api-key": b"a-guess-of-the-tests"}
OFFICE, GUESSER = ("192.0.2.7", 4711), ("198.51.100.9", 4711)
DAY, PERIOD = 86_400.0, 60.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def access_with(rate: str = "10/minute", clock: Clock | None = None) -> Access:
    settings = Settings(
        signer_pepper="p" * 16, admin_token=ADMIN, api_keys=f"{KEY}, {OTHER}", wrong_credentials_rate=rate
    )
    return Access(settings, Clients(), clock or Clock())


def scope_of(address: tuple[str, int]) -> dict[str, object]:
    return {"type": "http", "client": address, "headers": []}


HERE = scope_of(OFFICE)


@pytest.fixture
def access() -> Access:
    return access_with()


def bearer(secret: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {secret}".encode()}


def refused(access: Access, headers: dict[bytes, bytes], address: tuple[str, int] = OFFICE) -> Problem:
    with pytest.raises(Problem) as refusal:
        access.caller(headers, scope_of(address))
    return refusal.value


def role_of(access: Access, headers: dict[bytes, bytes], scope: dict[str, object]) -> Role | None:
    caller = access.caller(headers, scope)
    return None if caller is None else caller.role


def guess_beyond_the_rate(access: Access, address: tuple[str, int] = OFFICE) -> None:
    for _ in range(10):
        assert refused(access, WRONG, address).status == 401
    assert refused(access, WRONG, address).status == 429


def test_the_administrator_and_partners_are_known_by_what_they_send(access: Access) -> None:
    assert role_of(access, bearer(ADMIN), HERE) is Role.ADMIN
    assert role_of(access, bearer(KEY), HERE) is Role.PARTNER
    assert role_of(access, {b"x-api-key": OTHER.encode()}, HERE) is Role.PARTNER
    assert role_of(access, {b"authorization": f"bearer {KEY}".encode()}, HERE) is Role.PARTNER
    assert access.caller({}, HERE) is None


def test_a_caller_has_the_name_of_the_token_and_the_organisations_that_it_is_bound_to() -> None:
    settings = Settings(
        signer_pepper="p" * 16,
        admin_tokens=f"kim:{ADMIN},lee@open-rails+river-valley:{OTHER}",
        api_keys=f"importer@open-rails:{KEY}",
    )
    access = Access(settings, Clients(), Clock())
    kim, lee = access.caller(bearer(ADMIN), HERE), access.caller(bearer(OTHER), HERE)
    assert kim == Caller("kim", Role.ADMIN, None)
    assert lee == Caller("lee", Role.ADMIN, frozenset({"open-rails", "river-valley"}))
    assert access.caller({b"x-api-key": KEY.encode()}, HERE) == Caller(
        "importer", Role.PARTNER, frozenset({"open-rails"})
    )
    assert kim is not None
    assert lee is not None
    assert [kim.may("elsewhere"), lee.may("open-rails"), lee.may("elsewhere"), lee.may("")] == [
        True,
        True,
        False,
        False,
    ]


def test_two_tokens_overlap_while_one_is_rotated() -> None:
    settings = Settings(signer_pepper="p" * 16, admin_tokens=f"kim-2026:{ADMIN},kim-2027:{OTHER}")
    access = Access(settings, Clients(), Clock())
    assert [one.name for secret in (ADMIN, OTHER) if (one := access.caller(bearer(secret), HERE))] == [
        "kim-2026",
        "kim-2027",
    ]


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
        {b"authorization": f"Basic {ADMIN}".encode()},
        {b"x-api-key": b"\xff\xfe"},
    ],
)
def test_credentials_that_nobody_has_are_refused_and_asked_for_again(
    access: Access, headers: dict[bytes, bytes]
) -> None:
    refusal = refused(access, headers)
    assert (refusal.status, refusal.code) == (401, "credentials_wrong")
    assert "www-authenticate" in refusal.headers


def test_credentials_of_both_kinds_are_not_chosen_from(access: Access) -> None:
    refusal = refused(access, {**bearer(ADMIN), b"x-api-key": KEY.encode()})
    assert (refusal.status, refusal.code) == (400, "credentials_ambiguous")
    assert refusal.headers["connection"] == "close"


def test_a_call_for_partners_takes_no_anonymous_callers(access: Access) -> None:
    with pytest.raises(Problem) as refusal:
        access.require({}, HERE)
    assert refusal.value.status == 401
    assert access.require(bearer(KEY), HERE).role is Role.PARTNER
    assert access.require(bearer(ADMIN), HERE).role is Role.ADMIN


# ------------------------------------------------------------------------------------------------------- who guesses


def test_beyond_the_rate_no_guess_is_compared_with_the_secrets_not_even_a_right_one(access: Access) -> None:
    guess_beyond_the_rate(access)
    for credentials in (WRONG, bearer("wrong"), bearer(ADMIN), {b"x-api-key": KEY.encode()}):
        refusal = refused(access, credentials)
        assert (refusal.status, refusal.code) == (429, "too_many_wrong_credentials")
        assert refusal.retry_after is not None
        assert 1 <= refusal.retry_after <= PERIOD


def test_a_guess_is_looked_at_again_when_its_time_has_come(access: Access) -> None:
    clock = Clock()
    access = access_with(clock=clock)
    guess_beyond_the_rate(access)
    clock.now += refused(access, WRONG).retry_after or 0
    assert refused(access, WRONG).status == 401
    assert refused(access, WRONG).status == 429
    clock.now += PERIOD
    guess_beyond_the_rate(access)  # the whole allowance is back


def test_other_networks_notice_nothing_of_it(access: Access) -> None:
    guess_beyond_the_rate(access, GUESSER)
    assert role_of(access, bearer(ADMIN), HERE) is Role.ADMIN
    assert refused(access, WRONG).status == 401


def test_a_network_is_an_ipv6_64(access: Access) -> None:
    guess_beyond_the_rate(access, ("2001:db8:1:2::1", 1))
    assert refused(access, WRONG, ("2001:db8:1:2:ffff::9", 1)).status == 429
    assert refused(access, WRONG, ("2001:db8:1:3::1", 1)).status == 401


def test_right_credentials_never_count(access: Access) -> None:
    for _ in range(1_000):
        assert role_of(access, bearer(KEY), HERE) is Role.PARTNER
    guess_beyond_the_rate(access)


def test_calls_without_credentials_are_not_limited_by_it(access: Access) -> None:
    guess_beyond_the_rate(access)
    assert access.caller({}, HERE) is None


def test_a_partner_beside_a_guesser_is_not_shut_out() -> None:
    clock = Clock()
    access = access_with(clock=clock)
    assert role_of(access, bearer(KEY), HERE) is Role.PARTNER
    for _ in range(100):  # the guessing never ends
        with pytest.raises(Problem):
            access.caller(WRONG, HERE)
        clock.now += 0.1
    assert role_of(access, bearer(KEY), HERE) is Role.PARTNER
    assert role_of(access, {b"x-api-key": KEY.encode()}, HERE) is Role.PARTNER
    # Only what was right from there: neither the other key nor the token can be found out.
    assert refused(access, bearer(OTHER)).status == 429
    assert refused(access, bearer(ADMIN)).status == 429


def test_a_partner_who_comes_for_the_first_time_waits_one_period_at_most_once_the_guessing_has_ended() -> None:
    clock = Clock()
    access = access_with(clock=clock)
    guess_beyond_the_rate(access)
    wait = refused(access, bearer(KEY)).retry_after
    assert wait is not None
    assert wait <= PERIOD
    clock.now += wait
    assert role_of(access, bearer(KEY), HERE) is Role.PARTNER


def test_what_was_right_somewhere_is_forgotten_after_a_day() -> None:
    clock = Clock()
    access = access_with(clock=clock)
    assert role_of(access, bearer(KEY), HERE) is Role.PARTNER
    clock.now += DAY + 1
    guess_beyond_the_rate(access)
    assert refused(access, bearer(KEY)).status == 429


def test_what_was_right_elsewhere_is_no_help(access: Access) -> None:
    assert role_of(access, bearer(KEY), HERE) is Role.PARTNER
    guess_beyond_the_rate(access, GUESSER)
    assert refused(access, bearer(KEY), GUESSER).status == 429


def test_networks_that_are_remembered_are_bounded_and_the_last_ones_stay() -> None:
    access = access_with()
    for number in range(2_000):
        access.caller(bearer(KEY), scope_of((f"10.0.{number // 256}.{number % 256}", 1)))
    for address, status in ((("10.0.0.0", 1), 429), (("10.0.7.207", 1), None)):
        guess_beyond_the_rate(access, address)
        if status is None:
            assert role_of(access, bearer(KEY), scope_of(address)) is Role.PARTNER
        else:
            assert refused(access, bearer(KEY), address).status == status


def test_the_rate_can_be_turned_off() -> None:
    access = access_with("off")
    for _ in range(1_000):
        assert refused(access, WRONG).status == 401
