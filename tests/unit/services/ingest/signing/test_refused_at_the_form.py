"""Errors that form and petition alone decide are refused at their field, however the form is sent."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from services.ingest.signing.admission import Erasure, Submission, admit, checked_erasure
from services.ingest.signing.sign import BODY_BYTES
from services.verify.deciding.rules import Reason, judge
from shared.contract.bounds import MOST_CHARACTERS
from shared.contract.bounds.texts import MOST_BYTES_A_CHARACTER
from shared.contract.eligibility import CODES
from shared.contract.events import Policy, SignCommand
from shared.contract.form_errors import FORM_ERRORS
from shared.contract.identity import canonical_email
from shared.web.problems import Problem
from tests.support.hostile_ingest import AS_ADMIN, GOOD, SIGN, HostileIngest, ingest_anew, multipart
from tests.support.signing import NOON, PATH, PEPPER, petition, submission

STRICT = Policy(countries=["NL", "BE"], blocked_email_domains=["throwaway.example"], require_consent=True)
FINE = {"email": "robin@mail.example", "name": "Robin", "country": "NL", "consent": True}

BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"email": "robin@throwaway.example"}, "email", "email_domain_blocked"),
    ({"email": "robin@mx.throwaway.example"}, "email", "email_domain_blocked"),
    ({"country": "ZZ"}, "country", "country_unknown"),
    ({"country": "UK"}, "country", "country_unknown"),
    ({"country": "DE"}, "country", "country_not_eligible"),
    ({"consent": False}, "consent", "consent_missing"),
    ({"name": "12345"}, "name", "name_invalid"),
    ({"name": "https://boats.example"}, "name", "name_invalid"),
    ({"name": "Www.boats.example"}, "name", "name_invalid"),
]
SHAPES: list[tuple[dict[str, Any], str, str]] = [
    ({"email": "robin"}, "email", "not_an_address"),
    ({"email": "\u3164"}, "email", "blank"),
    ({"email": "robin@localhost"}, "email", "address_unreachable"),
    ({"email": "robin@mail"}, "email", "address_incomplete"),
    ({"email": "robin@mail.invalid"}, "email", "address_unreachable"),
    ({"email": "+tag@gmail.com"}, "email", "address_without_mailbox"),
    ({"email": f"{'r' * 65}@mail.example"}, "email", "address_too_long"),
    ({"email": "r" * 321}, "email", "too_long"),
    ({"country": "Netherlands"}, "country", "not_a_country_code"),
    ({"name": "\u3164"}, "name", "blank"),
    ({"name": "R" * 201}, "name", "too_long"),
    ({"name": "Robin\nMarsh"}, "name", "not_one_line"),
    ({"postcode": "1\x001"}, "postcode", "not_one_line"),
    ({"comment": "bell\x07"}, "comment", "control_characters"),
    ({"comment": "c" * 2_001}, "comment", "too_long"),
]


def refused(fields: dict[str, Any], policy: Policy = STRICT) -> list[tuple[str, str]]:
    with pytest.raises(Problem) as refusal:
        admit(
            Submission(**{**FINE, **fields}),
            petition=petition(policy=policy),
            pepper=PEPPER,
            idempotency_key=None,
            moment=NOON,
        )
    for error in refusal.value.errors:
        assert error["problem"].endswith((".", ")"))
        assert error["code"] in FORM_ERRORS
    return [(error["field"], error["code"]) for error in refusal.value.errors]


@pytest.mark.parametrize(("broken", "field", "code"), [*BROKEN, *SHAPES])
def test_a_form_that_breaks_a_rule_is_told_at_its_field(broken: dict[str, Any], field: str, code: str) -> None:
    assert refused(broken) == [(field, code)]


def test_all_rules_that_a_form_breaks_are_told_at_once() -> None:
    everything = {"email": "robin@throwaway.example", "country": "DE", "name": "12345", "consent": False}
    assert {code for _, code in refused(everything)} == CODES - {"country_unknown"}


@pytest.mark.parametrize(("broken", "field", "code"), BROKEN)
def test_verify_rejects_for_the_same_reason_what_reached_the_topic_all_the_same(
    broken: dict[str, Any], field: str, code: str
) -> None:
    fields = {
        "signature_id": "019356a0-0000-7000-8000-000000000001",
        "petition_id": PATH,
        "submitted_at": NOON.isoformat(),
    }
    command = SignCommand.model_validate_json(json.dumps({**FINE, **broken, **fields}))
    domain = canonical_email(command.email).rpartition("@")[2]
    assert judge(submission(command, email_domain=domain), petition(policy=STRICT)).reason is Reason(code)


def test_every_rule_of_eligibility_is_a_reason_of_verify_and_an_error_of_the_form() -> None:
    assert {reason.value for reason in Reason} >= CODES
    assert FORM_ERRORS.keys() >= CODES


async def answers(fields: dict[str, object]) -> list[tuple[int, list[tuple[str, str]]]]:
    """Status and errors of a submission that is sent as JSON, as each kind of form, and as the line of a batch."""
    texts = {name: "on" if value is True else value for name, value in fields.items() if value is not False}
    found = []
    ingest: HostileIngest = ingest_anew()
    line = json.dumps(fields).encode()
    for kind, body in (
        (b"application/json", line),
        (b"application/x-www-form-urlencoded", urlencode(texts).encode()),
        (b"multipart/form-data; boundary=b", multipart(texts)),
    ):
        answer = await ingest.ask("POST", SIGN, [(b"content-type", kind)], [body])
        assert answer is not None
        found.append((answer.status, errors_of(json.loads(answer.body))))
    ndjson = [AS_ADMIN, (b"content-type", b"application/x-ndjson")]
    answer = await ingest.ask("POST", SIGN + b"/batch", ndjson, [line])
    assert answer is not None
    [result] = json.loads(answer.body)["results"]
    found.append((result["status"], errors_of(result.get("problem", {}))))
    return found


def errors_of(problem: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error["field"], error["code"]) for error in problem.get("errors", [])]


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"country": "ZZ"}, "country", "country_unknown"),
        ({"name": "12345"}, "name", "name_invalid"),
        ({"name": "\u2800"}, "name", "blank"),
        ({"comment": "c" * 2_001}, "comment", "too_long"),
    ],
)
async def test_json_forms_and_batches_are_refused_alike(changes: dict[str, object], field: str, code: str) -> None:
    assert await answers({**GOOD, **changes}) == [(422, [(field, code)])] * 4


@pytest.mark.parametrize(
    "comment",
    [
        "c" * 1_900 + "\r\n" * 100,
        "这" * 1_900 + "\r\n" * 100,
        "🚆" * 2_000,
        "e\u0302\u0301" * 2_000,
        "\u0958" * 2_000,
        "'" * 2_000,
    ],
    ids=["line breaks", "Chinese with line breaks", "emoji", "accents apart", "composed becomes longer", "apostrophes"],
)
async def test_a_comment_as_long_as_the_form_lets_one_type_is_accepted_in_every_way(comment: str) -> None:
    longest = {**GOOD, "name": "李" * MOST_CHARACTERS["name"], "postcode": "１" * MOST_CHARACTERS["postcode"]}
    assert await answers({**longest, "comment": comment}) == [(202, [])] * 4


def test_the_largest_body_holds_the_longest_texts_in_their_longest_form() -> None:
    assert MOST_BYTES_A_CHARACTER == len("%F0%9F%9A%86") == len(json.dumps("🚆")) - 2
    assert sum(MOST_CHARACTERS.values()) * MOST_BYTES_A_CHARACTER + 2_000 <= BODY_BYTES


@pytest.mark.parametrize("words", [{"actor": "\u3164"}, {"reason": "\u200b"}, {"actor": "A" * 101}, {"reason": "a\nb"}])
def test_who_erases_and_why_must_be_readable(words: dict[str, str]) -> None:
    with pytest.raises(Problem):
        checked_erasure(Erasure(**{"actor": "Kim", "reason": "Request 4711", **words}), "admin")


def test_what_is_published_is_what_was_checked() -> None:
    sent = Submission(
        email="\u00a0Ｒobin＠Mail.example\u200b",
        name="\u3000Jose\u0301\u00a0",
        country="ｎｌ",
        postcode="\u00a0１０００\u3164",
        comment="\ufeff a\r\nb \u2028",
        consent=True,
    )
    command = admit(sent, petition=petition(), pepper=PEPPER, idempotency_key=None, moment=NOON).command
    assert (command.email, command.name, command.country) == ("Robin@Mail.example", "José", "NL")
    assert (command.postcode, command.comment) == ("１０００", "a\nb")
