"""Invalid petitions: settings that can never match, invisible texts, addresses that no mail reaches."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from services.ingest.petitions.rules import petition_errors
from services.notify.mail.letter import Unmailable, parse_mailbox
from services.notify.mail.letter import wire_address as address_of_notify
from shared.contract.events import PetitionChanged, PetitionState
from shared.contract.field_errors import field_errors
from shared.contract.mail_address import wire_address
from tests.support.signing import petition

STATE: dict[str, Any] = {
    "organisation": {"slug": "open-rails", "name": "Open Rails"},
    "title": "Night trains",
    "text": "One each night.",
    "targets": [{"target_id": "council", "name": "The Council", "kind": "body", "email": "post@council.example"}],
}


def state(**changes: Any) -> PetitionState:
    return PetitionState.model_validate_json(json.dumps({**STATE, **changes}))


def target(**changes: Any) -> list[dict[str, Any]]:
    return [{**STATE["targets"][0], **changes}]


def wrong(**changes: Any) -> list[tuple[str, str]]:
    """Fields and codes of errors, from the model or the rules."""
    try:
        errors = petition_errors(state(**changes))
    except ValidationError as error:
        errors = tuple(field_errors(error))
    assert all(error["problem"] for error in errors)
    return [(error["field"], error["code"]) for error in errors]


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("post@council.example ", "post@council.example"),
        ("\u00a0post@council.example\u200b", "post@council.example"),
        ("post＠council.example", "post@council.example"),
        ("Ｐost@Council.example", "Post@Council.example"),
        ("post@bücher.example", "post@bücher.example"),
    ],
)
def test_a_targets_address_is_stored_as_a_mail_can_be_sent_to_it(typed: str, stored: str) -> None:
    found = state(targets=target(email=typed))
    assert petition_errors(found) == ()
    assert found.targets[0].email == stored
    assert wire_address(stored) == wire_address(typed)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("post at council", "not_an_address"),
        ("post@council", "address_incomplete"),
        ("post@council.invalid", "address_unreachable"),
        ("post@council.local", "address_unreachable"),
        ("a@one.example, b@two.example", "not_an_address"),
        ("post@[192.0.2.7]", "not_an_address"),
        ("\u3164\u3164\u3164", "not_an_address"),
    ],
)
def test_a_target_that_no_mail_can_reach_is_refused_with_the_reason(typed: str, code: str) -> None:
    assert wrong(targets=target(email=typed)) == [("targets.0.email", code)]


def test_notify_refuses_addresses_by_the_function_that_ingest_checks_them_with() -> None:
    assert address_of_notify is wire_address
    assert issubclass(Unmailable, ValueError)
    assert parse_mailbox("\u00a0Desk\u00a0 <desk＠groundswell.example>\u200b").address == "desk@groundswell.example"


@pytest.mark.parametrize("blank", ["\u3164", "\u2800", "\u115f\u1160", "\ufe0f\ufe0f\ufe0f", "\u200d\u200d\u200d"])
def test_letters_that_show_nothing_are_no_title_name_or_text(blank: str) -> None:
    assert wrong(title=blank) == [("title", "blank")]
    assert wrong(text=blank) == [("text", "blank")]
    assert wrong(organisation={"slug": "o", "name": blank}) == [("organisation.name", "blank")]
    assert wrong(targets=target(name=blank)) == [("targets.0.name", "blank")]


def test_texts_are_stored_composed_and_without_blanks_at_their_ends() -> None:
    found = state(
        title="\u00a0Cafe\u0301 ", text=" a\r\nb\u2028", organisation={"slug": "o", "name": "\u3000Open Rails"}
    )
    assert (found.title, found.text, found.organisation.name) == ("Café", "a\nb", "Open Rails")
    assert state(title=" " + "e\u0301" * 300 + "\u00a0").title == "é" * 300


@pytest.mark.parametrize("field", ["opens_at", "closes_at"])
@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+01:00"])
def test_a_time_outside_of_the_calendar_in_utc_is_refused(field: str, moment: str) -> None:
    assert wrong(**{field: moment}) == [(field, "time_out_of_range")]


def test_times_are_stored_in_utc_and_the_ends_of_the_calendar_are_in_it() -> None:
    found = state(opens_at="0001-01-01T00:00:00Z", closes_at="9999-12-31T23:59:59Z")
    assert petition_errors(found) == ()
    assert state(opens_at="2026-11-22T12:00:00+02:00").model_dump_json().count("2026-11-22T10:00:00Z") == 1


def test_a_record_with_such_a_time_is_no_petition() -> None:
    event = json.loads(petition().model_dump_json())
    with pytest.raises(ValidationError):
        PetitionChanged.model_validate_json(json.dumps({**event, "closes_at": "9999-12-31T23:59:59-05:00"}))


def test_a_record_of_before_these_rules_stays_a_petition_and_is_cleaned() -> None:
    event = json.loads(petition().model_dump_json())
    old = {**event, "title": "\u3164", "targets": target(email="post@council.example "), "policy": {"countries": []}}
    found = PetitionChanged.model_validate_json(json.dumps(old))
    assert (found.title, found.targets[0].email) == ("\u3164", "post@council.example")


@pytest.mark.parametrize(
    ("countries", "errors"),
    [
        ([], [("policy.countries", "no_country")]),
        (["UK"], [("policy.countries.0", "country_unknown")]),
        (["NL", "ZZ"], [("policy.countries.1", "country_unknown")]),
        (["Netherlands"], [("policy.countries.0", "not_a_country_code")]),
        (["NLD"], [("policy.countries.0", "not_a_country_code")]),
        (["nl", " NL", "ＢＥ"], []),
        (None, []),
    ],
)
def test_countries_that_nobody_can_be_from_are_refused(countries: object, errors: list[tuple[str, str]]) -> None:
    assert wrong(policy={"countries": countries}) == errors


def test_countries_in_the_usual_spellings_are_understood_and_the_united_kingdom_is_named() -> None:
    assert state(policy={"countries": ["nl", " NL", "ＢＥ"]}).policy.countries == ["NL", "BE"]
    [error] = petition_errors(state(policy={"countries": ["uk"]}))
    assert "United Kingdom is GB" in error["problem"]


@pytest.mark.parametrize(
    "typed",
    ["@trash.example", "*.trash.example", "*@trash.example", " Trash.example ", "trash.example.", ".trash.example"],
)
def test_a_blocked_domain_blocks_in_every_usual_spelling(typed: str) -> None:
    found = state(policy={"blocked_email_domains": [typed, "trash.example"]})
    assert petition_errors(found) == ()
    assert found.policy.blocked_email_domains == ["trash.example"]
    assert found.policy.blocks("mx.trash.example")
    assert not found.policy.blocks("nottrash.example")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("https://trash.example/x", "web address"),
        ("robin@trash.example", "This is an address"),
        ("trash.*", "*.mail.example"),
        ("", "no domain"),
        ("trash example", "no domain"),
        ("x" * 300, "no domain"),
    ],
)
def test_what_is_no_domain_cannot_be_blocked_and_the_answer_says_what_is_meant(typed: str, words: str) -> None:
    [error] = petition_errors(state(policy={"blocked_email_domains": [typed]}))
    assert (error["field"], error["code"]) == ("policy.blocked_email_domains.0", "not_a_domain")
    assert words in error["problem"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"milestones": [10, 5]}, "milestones_not_rising"),
        ({"milestones": [5, 5]}, "milestones_not_rising"),
        ({"opens_at": "2026-11-22T12:00:00Z", "closes_at": "2026-11-22T12:00:00Z"}, "closes_before_it_opens"),
        ({"opens_at": "2026-11-22T12:00:00Z", "closes_at": "2026-11-22T13:00:00+02:00"}, "closes_before_it_opens"),
        ({"targets": [*STATE["targets"], *STATE["targets"]]}, "target_id_repeated"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(changes: dict[str, Any], code: str) -> None:
    assert wrong(**changes) == [("(body)", code)]
