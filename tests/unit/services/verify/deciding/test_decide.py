"""Which signatures stand, and in which order commands take effect."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verify.deciding.rules import (
    REASONS,
    Change,
    Judgement,
    Reason,
    SubmittedCommand,
    in_lane_order,
    in_rounds,
    is_sign,
    judge,
)
from shared.contract.countries import COUNTRIES
from shared.contract.events import ConfirmCommand, EraseCommand, InvalidateCommand, Pause, Policy, WithdrawCommand
from tests.support.signing import NOON, change, petition, sign, submission

STRICT = Policy(countries=["NL", "BE"], blocked_email_domains=["throwaway.example"], require_consent=True)

# The rules in their order; each with what makes a signature break it.
RULES: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.PETITION_CLOSED, {"at": NOON + timedelta(days=1)}),
    (Reason.EMAIL_DOMAIN_BLOCKED, {"email": "ada@throwaway.example"}),
    (Reason.COUNTRY_UNKNOWN, {"country": "ZZ"}),
    (Reason.COUNTRY_NOT_ELIGIBLE, {"country": "DE"}),
    (Reason.CONSENT_MISSING, {"consent": False}),
    (Reason.NAME_INVALID, {"name": "www.win-a-boat.example"}),
]


def judged(policy: Policy | None = None, **fields: Any) -> Judgement:
    """The judgement of a signature of a petition that is open for a day around noon."""
    found = petition(
        opens_at=NOON - timedelta(hours=12), closes_at=NOON + timedelta(hours=12), policy=policy or Policy()
    )
    return judge(submission(sign(1, **fields)), found)


def test_a_signature_that_breaks_no_rule_stands() -> None:
    assert judged(STRICT, consent=True) == Judgement("verified")


def test_a_signature_waits_where_the_petition_asks_for_confirmation() -> None:
    assert judged(Policy(confirmation="required")) == Judgement("pending")


def test_a_signature_that_is_refused_does_not_wait_for_confirmation() -> None:
    assert judged(Policy(confirmation="required"), country="ZZ") == Judgement("rejected", Reason.COUNTRY_UNKNOWN)


@pytest.mark.parametrize(("reason", "broken"), RULES)
def test_a_signature_that_breaks_one_rule_is_refused_for_it(reason: Reason, broken: dict[str, Any]) -> None:
    assert judged(STRICT, **{"consent": True, **broken}) == Judgement("rejected", reason)


@given(broken=st.sets(st.integers(0, len(RULES) - 1), min_size=1))
def test_a_signature_that_breaks_several_rules_is_refused_for_the_first_of_them(broken: set[int]) -> None:
    fields: dict[str, Any] = {"consent": True}
    for rule in sorted(broken):
        # Two rules look at the country; one that does not exist is not one of the petition's either.
        fields = {**RULES[rule][1], **fields} if "country" in fields else {**fields, **RULES[rule][1]}
    assert judged(STRICT, **fields) == Judgement("rejected", RULES[min(broken)][0])


def test_a_signature_for_a_petition_that_nobody_knows_is_refused_whatever_else_it_breaks() -> None:
    unreadable = submission(sign(1, country="ZZ", name="..."))
    assert judge(unreadable, None) == Judgement("rejected", Reason.PETITION_UNKNOWN)


def test_a_signature_before_the_opening_is_refused_before_any_other_rule() -> None:
    found = judged(STRICT, at=NOON - timedelta(days=1), country="ZZ")
    assert found == Judgement("rejected", Reason.PETITION_NOT_OPEN)


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (NOON - timedelta(hours=12, microseconds=1), Reason.PETITION_NOT_OPEN),
        (NOON - timedelta(hours=12), None),
        (NOON + timedelta(hours=12) - timedelta(microseconds=1), None),
        (NOON + timedelta(hours=12), Reason.PETITION_CLOSED),
    ],
)
@pytest.mark.parametrize("hours", [0, -11, 14])
def test_a_petition_takes_signatures_from_its_opening_up_to_its_closing_time_by_their_own_time(
    moment: datetime, reason: Reason | None, hours: int
) -> None:
    assert judged(at=moment.astimezone(timezone(timedelta(hours=hours)))).reason is reason


@pytest.mark.parametrize(
    ("domain", "blocked"),
    [
        ("throwaway.example", True),
        ("mx.throwaway.example", True),
        ("notthrowaway.example", False),
        ("throwaway.example.org", False),
        ("example", False),
    ],
)
def test_a_blocked_domain_is_blocked_with_all_below_it_and_nothing_else(domain: str, *, blocked: bool) -> None:
    policy = Policy(blocked_email_domains=["Throwaway.Example"])
    found = judge(submission(sign(1), email_domain=domain), petition(policy=policy))
    assert (found.reason is Reason.EMAIL_DOMAIN_BLOCKED) is blocked


@pytest.mark.parametrize("name", ["Ada", "Åsa Öberg", "李", "محمد", "O'Neil-Smith 3rd", "X Æ", "a"])
def test_any_scripts_letters_make_a_name(name: str) -> None:
    assert judged(name=name) == Judgement("verified")


@pytest.mark.parametrize(
    "name", ["12345", "...", " ", "💚", "https://boats.example", "Buy at HTTP://boats.example", "WWW.x.y"]
)
def test_no_letters_or_a_web_address_make_none(name: str) -> None:
    assert judged(name=name) == Judgement("rejected", Reason.NAME_INVALID)


@pytest.mark.parametrize("code", ["XX", "EU", "UK", "AA"])
def test_codes_that_are_not_assigned_are_no_countries(code: str) -> None:
    assert judged(country=code) == Judgement("rejected", Reason.COUNTRY_UNKNOWN)


@given(country=st.sampled_from(sorted(COUNTRIES)))
def test_every_country_may_sign_where_the_petition_names_none(country: str) -> None:
    assert judged(country=country) == Judgement("verified")


def test_every_reason_is_explained() -> None:
    assert REASONS.keys() == set(Reason)
    assert all(sentence.endswith(".") for sentence in REASONS.values())


# ------------------------------------------------------------------------------------------------ the order of effects


def commands_of(signers: Sequence[int]) -> list[SubmittedCommand]:
    """Commands in order of arrival; the number is the signer's."""
    kinds = (ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand)
    return [
        submission(
            sign(place + 1, signer=signer) if place % 2 else change(kinds[place // 2 % len(kinds)], place + 1),
            offset=place,
            key=UUID(int=signer),
        )
        for place, signer in enumerate(signers)
    ]


@given(signers=st.lists(st.integers(0, 5), max_size=40))
def test_rounds_hold_every_command_once_and_keep_each_signers_order(signers: list[int]) -> None:
    arrived = commands_of(signers)
    rounds = in_rounds(arrived)
    assert sorted((one for turn in rounds for one in turn), key=lambda one: one.offset) == arrived
    for turn in rounds:
        assert [one.offset for one in turn] == sorted(one.offset for one in turn), "a round keeps the order of arrival"
        changed = [one.signer_key for one in turn if not is_sign(one)]
        assert len(set(changed)) == len(changed), "a set-based statement changes each signer's signatures once"
        assert not set(changed) & {one.signer_key for one in turn if is_sign(one)}, "and not in a round with new ones"
    for signer in set(signers):
        own = [one.offset for turn in rounds for one in turn if one.signer_key == UUID(int=signer)]
        assert own == sorted(own)


@given(signers=st.lists(st.integers(0, 1000), unique=True, min_size=1, max_size=40))
def test_commands_of_different_signers_are_one_round(signers: list[int]) -> None:
    arrived = commands_of(signers)
    assert in_rounds(arrived) == [arrived]


@given(signers=st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_signatures_alone_are_one_round_however_often_somebody_signs(signers: list[int]) -> None:
    arrived = [submission(sign(place + 1, signer=signer), offset=place) for place, signer in enumerate(signers)]
    assert in_rounds(arrived) == [arrived]


def test_no_commands_are_no_rounds() -> None:
    assert in_rounds([]) == []


@given(places=st.permutations([(lane, offset) for lane in range(3) for offset in range(4)]))
def test_changes_take_their_positions_lane_by_lane_as_the_commands_stand_there(places: list[tuple[int, int]]) -> None:
    changes = [
        Change(
            submission(sign(1), lane=lane, offset=offset), "verified", 1, "a-petition", UUID(int=1), "NL", NOON, NOON
        )
        for lane, offset in places
    ]
    ordered = [(one.submission.lane, one.submission.offset) for one in in_lane_order(changes)]
    assert ordered == sorted(places)


@pytest.mark.parametrize(
    ("entry", "domain"),
    [
        ("GoogleMail.com", "gmail.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("throwaway.example.", "a.throwaway.example"),
        ("me.com", "icloud.com"),
        ("Fastmail.com", "fastmail.com"),
    ],
)
def test_a_blocked_domain_is_known_in_every_spelling(entry: str, domain: str) -> None:
    assert Policy(blocked_email_domains=[entry]).blocks(domain)
    assert not Policy(blocked_email_domains=[entry]).blocks("other.example")


def test_what_was_accepted_counts_also_if_the_petition_was_paused_or_unpublished_meanwhile() -> None:
    for changed in (petition(paused=Pause(sentence="Back on Monday.")), petition(published=False)):
        assert judge(submission(sign(1)), changed) == Judgement("verified")


def test_blocking_one_domain_of_a_provider_does_not_block_another_one_under_which_names_are_other_peoples() -> None:
    assert not Policy(blocked_email_domains=["hotmail.com"]).blocks("outlook.com")
    assert not Policy(blocked_email_domains=["fastmail.fm"]).blocks("fastmail.com")
