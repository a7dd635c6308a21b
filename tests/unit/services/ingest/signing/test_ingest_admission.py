"""The rules by which a submission becomes a command."""

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.ingest.petitions.rules import petition_errors
from services.ingest.problems import KINDS
from services.ingest.signing.admission import Submission, admit, require_open, valid_idempotency_key
from shared.contract.events import PetitionChanged, PetitionState
from shared.contract.identity import canonical_email, issued_here, signer_key
from shared.contract.mailboxes.providers import LATEST
from shared.web.problems import Problem

PEPPER = b"a pepper of tests, long enough"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def submission(**changes: Any) -> Submission:
    return Submission(**{"email": "robin@mail.example", "name": "Robin", "country": "NL", **changes})


def admitted(sent: Submission, *, key: str | None = None, petition_id: str = "night-trains"):
    found = petition(petition_id=petition_id)
    return admit(sent, petition=found, pepper=PEPPER, idempotency_key=key, moment=NOW)


def petition(**changes: Any) -> PetitionChanged:
    state = {
        "organisation": {"slug": "open-rails", "name": "Open Rails"},
        "title": "Night trains",
        "text": "One each night.",
        "targets": [{"target_id": "council", "name": "The Council", "kind": "body", "email": "post@council.example"}],
        "petition_id": "night-trains",
        "changed_at": NOW.isoformat(),
        **changes,
    }
    return PetitionChanged.model_validate_json(json.dumps(state))


# ---------------------------------------------------------------------------------------------- open, closed, not yet


def test_a_petition_that_nobody_has_heard_of_takes_no_signatures():
    with pytest.raises(Problem) as refusal:
        require_open(None, NOW)
    assert refusal.value.status == 404


def test_a_petition_that_a_newer_ingest_made_takes_no_signatures_here():
    """By rules that this one does not know, a signer would get another key, and could sign again."""
    with pytest.raises(Problem) as refusal:
        require_open(petition(mailbox_rules=LATEST + 1), NOW)
    answer = refusal.value
    assert (answer.status, answer.code, answer.retry_after) == (503, "petition_newer", 5)


@pytest.mark.parametrize(("rules", "canonical"), [(1, "ro.bin@proton.me"), (2, "robin@proton.me")])
def test_a_signer_is_told_by_the_mailbox_rules_of_the_petition(rules: int, canonical: str):
    sent = submission(email="ro.bin+x@proton.me")
    of_then = petition(mailbox_rules=rules)
    found = admit(sent, petition=of_then, pepper=PEPPER, idempotency_key=None, moment=NOW)
    assert found.signer == signer_key(PEPPER, "night-trains", canonical)


def test_a_petition_opens_at_its_opening_time_and_closes_at_its_closing_time():
    opens, closes = NOW, NOW + timedelta(days=1)
    timed = petition(opens_at=opens.isoformat(), closes_at=closes.isoformat())
    with pytest.raises(Problem) as early:
        require_open(timed, opens - timedelta(microseconds=1))
    assert require_open(timed, opens) is timed
    assert require_open(timed, closes - timedelta(microseconds=1)) is timed
    with pytest.raises(Problem) as late:
        require_open(timed, closes)
    assert (early.value.code, late.value.code) == ("petition_not_open_yet", "petition_closed")
    assert early.value.status == 409
    assert "2026-11-22 12:00 UTC" in early.value.detail
    assert late.value.status == 410


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_the_signer_sent_in_one_spelling():
    command = admitted(
        submission(email=" Robin@Mail.Example ", name="  Jose\u0301  ", country="nl", postcode=" ", comment=" a\r\nb ")
    ).command
    assert command.email == "Robin@Mail.Example"  # as typed: verify canonicalises, mails go where the signer said
    assert command.name == "José"
    assert command.country == "NL"
    assert command.postcode is None
    assert command.comment == "a\nb"
    assert command.submitted_at == NOW


def test_the_record_key_is_the_signer_key_of_the_canonical_address():
    one = admitted(submission(email="Robin.X+petition@gmail.com"))
    assert one.key == admitted(submission(email="robinx@googlemail.com")).key
    assert one.key == signer_key(PEPPER, "night-trains", "robinx@gmail.com").hex.encode()
    assert len(one.key) == 32
    assert one.key != admitted(submission(email="robinx@gmail.com"), petition_id="another").key


def test_every_submission_without_an_idempotency_key_is_a_signature_of_its_own():
    ids = {admitted(submission()).command.signature_id for _ in range(100)}
    assert len(ids) == 100
    assert all(issued_here(PEPPER, one) for one in ids)


@given(key=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255))
def test_a_retry_with_the_same_key_is_the_same_signature_and_another_signer_with_it_is_not(key):
    valid_idempotency_key(key.encode())
    first = admitted(submission(), key=key).command.signature_id
    assert admitted(submission(email="ROBIN@mail.example", name="R."), key=key).command.signature_id == first
    assert admitted(submission(email="kim@mail.example"), key=key).command.signature_id != first
    assert issued_here(PEPPER, first)


@pytest.mark.parametrize("header", [b"", b" ", b"a b", b"\xc3\xa9", b"a\x00", b"x" * 256, b"a\n"])
def test_an_idempotency_key_that_is_not_visible_ascii_is_refused(header):
    with pytest.raises(Problem) as refusal:
        valid_idempotency_key(header)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "robin"),
        ("email", "robin@localhost"),
        ("email", "robin @mail.example"),
        ("email", "+tag@gmail.com"),
        ("country", "N1"),
        ("country", "ÑL"),
        ("country", "ß2"),
        ("name", "   "),
        ("name", "Robin\nBcc: all@mail.example"),
        ("name", "Robin\u202enibor"),
        ("postcode", "10\x0011"),
        ("comment", "bell\x07"),
    ],
)
def test_a_field_that_must_be_put_right_is_named_and_its_value_is_not_repeated(field, value):
    with pytest.raises(Problem) as refusal:
        admitted(submission(**{field: value}))
    answer = refusal.value
    assert answer.status == 422
    (error,) = answer.errors
    assert error["field"] == field
    assert value.strip() == "" or value not in json.dumps(answer.body(), ensure_ascii=False)


def test_all_fields_that_must_be_put_right_are_named_at_once():
    with pytest.raises(Problem) as refusal:
        admitted(submission(email="robin", name=" ", country="1a"))
    assert [error["field"] for error in refusal.value.errors] == ["email", "country", "name"]


def test_names_that_need_zero_width_joiners_are_kept():
    persian = "علی\u200cرضا"
    assert admitted(submission(name=persian)).command.name == persian


def test_a_name_that_only_normalisation_makes_too_long_stays_as_it_was_typed():
    # U+0958 becomes two characters in NFC (a composition exclusion), so 200 of them would become 400.
    assert admitted(submission(name="\u0958" * 200)).command.name == "\u0958" * 200
    assert admitted(submission(name="\u0958" * 100)).command.name == "\u0915\u093c" * 100


@given(
    email=st.emails(),
    name=st.text(max_size=210),
    country=st.text(max_size=4) | st.sampled_from(["NL", "de", "ＦＲ"]),
    postcode=st.none() | st.text(max_size=20),
    comment=st.none() | st.text(max_size=2000),
    consent=st.booleans(),
)
def test_whatever_is_sent_becomes_a_valid_command_or_field_errors(email, name, country, postcode, comment, consent):
    try:
        sent = submission(email=email, name=name, country=country, postcode=postcode, comment=comment, consent=consent)
        result = admitted(sent)
    except Problem:
        return
    command = result.command
    assert command.name
    assert unicodedata.is_normalized("NFC", command.name) or len(unicodedata.normalize("NFC", command.name)) > 200
    assert command.country.isascii()
    assert command.country.isupper()
    assert result.signer == signer_key(PEPPER, "night-trains", canonical_email(command.email))
    # Strict models at both ends: what is published can be read.
    assert type(command).model_validate_json(command.model_dump_json()) == command


def test_an_exception_about_a_submission_never_holds_what_was_sent():
    with pytest.raises(ValidationError) as error:
        Submission.model_validate_json('{"email": "secret@mail.example", "name": ["Robin"], "country": "NL"}')
    assert "Robin" not in str(error.value)
    assert "secret" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------ petitions


def state(**changes: Any) -> PetitionState:
    return PetitionState(
        **{name: value for name, value in dict(petition(**changes)).items() if name in PetitionState.model_fields}
    )


def test_a_petition_in_order_has_no_errors():
    assert petition_errors(state(text="Two lines:\n\tone.\n")) == ()


def test_a_target_that_no_mail_reaches_is_named():
    target = {"target_id": "council", "name": "The Council", "kind": "body", "email": "post at council"}
    (error,) = petition_errors(state(targets=[target]))
    assert error["field"] == "targets.0.email"


def test_a_line_break_in_a_title_or_a_name_is_refused_because_it_would_reach_mail_headers():
    target = {"target_id": "council", "name": "The\nCouncil", "kind": "body", "email": "post@council.example"}
    errors = petition_errors(
        state(title="A\r\nB", organisation={"slug": "open-rails", "name": "Open\nRails"}, targets=[target])
    )
    assert [error["field"] for error in errors] == ["organisation.name", "title", "targets.0.name"]


def test_every_refusal_has_a_status_that_problem_details_may_have_and_a_sentence():
    for name, kind in KINDS.items():
        assert 400 <= kind.status <= 599, name
        assert kind.detail.endswith("."), name
        assert (kind.retry_after is not None) or kind.status not in (503,), name


@pytest.mark.parametrize("language", ["nl", "pt-BR", "zh-Hant", "gsw", "AR", "fa-IR"])
def test_a_petition_may_be_in_any_registered_language(language: str) -> None:
    assert petition_errors(state(language=language)) == ()


@pytest.mark.parametrize("language", ["english", "xx", "deutsch", "en-en-en"])
def test_a_language_that_nobody_has_registered_is_refused(language: str) -> None:
    (error,) = petition_errors(state(language=language))
    assert (error["field"], "such as nl" in error["problem"]) == ("language", True)
