"""What verify reads as a command, what becomes a dead letter, and what it publishes."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.verify.deciding.outcome import LedgerRow, RefusedSignature
from services.verify.handlers import VerifyHandler
from services.verify.metrics import VerifyMetrics
from services.verify.publishing.records import fact_record, rejection_record
from services.verify.store import VerifyStore
from shared.contract.catalogue import Catalogue
from shared.contract.events import (
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    Policy,
    SignatureRejected,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    WithdrawCommand,
)
from shared.contract.identity import canonical_email, command_id, signer_key
from shared.contract.mailboxes.providers import LATEST
from shared.contract.states import CountChange
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.records.record import Headers, Record
from shared.runtime.failures import InvalidRecord
from tests.support.signing import (
    NOON,
    PATH,
    PEPPER,
    MemoryProducer,
    change,
    event_id_of,
    record,
    sign,
    signer_key_of,
    submission,
)

HANDLER = VerifyHandler(
    catalogue=Catalogue(),
    feed=cast("CatalogueFeed", None),  # decoding reads no store
    store=cast("VerifyStore", None),
    producer=MemoryProducer(),
    metrics=VerifyMetrics(CollectorRegistry()),
    pepper=PEPPER,
)
ADA = sign(1, email="Ada.Marsh@lakepost.example")
KEY = signer_key_of(ADA).hex.encode()
CHANGES = [ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand]


def with_field(field: str, value: object, command: SignCommand = ADA) -> bytes:
    return json.dumps({**command.model_dump(mode="json"), field: value}).encode()


def headers_of(**changes: bytes | None) -> Headers:
    """The headers of Ada's command; None leaves one out."""
    own = cast("Headers", record(ADA, event_id=ADA.signature_id).headers)
    return [
        (name, value)
        for name, old in own
        if (value := changes.get(name.removeprefix("ce_"), old)) is not None
    ]  # fmt: skip


def invalid(value: bytes | None, *, key: bytes | None = KEY, headers: Headers | None = None) -> InvalidRecord:
    with pytest.raises(InvalidRecord) as error:
        HANDLER.decode(record(value, key=key, headers=headers or headers_of()))
    return error.value


def test_a_sign_command_is_read_with_its_place_and_the_domain_of_the_mailbox() -> None:
    command = sign(1, email="Ａda+boats@LakePost.example")
    read = HANDLER.decode(
        record(command, key=signer_key_of(command).hex.encode(), event_id=command.signature_id, partition=3, offset=17)
    )
    assert (read.lane, read.offset) == (3, 17)
    assert (read.event_id, read.signer_key) == (command.signature_id, signer_key_of(command))
    assert (read.command, read.email_domain) == (command, "lakepost.example")


@pytest.mark.parametrize("command", CHANGES)
def test_a_command_about_a_signature_is_read_with_its_signers_key(command: Any) -> None:
    told = change(command, 1)
    read = HANDLER.decode(record(told, key=KEY, event_id=command_id(told.signature_id, command.TYPE)))
    assert read.command == told
    assert read.signer_key == UUID(hex=KEY.decode())


@pytest.mark.parametrize("field", ["actor", "reason"])
@pytest.mark.parametrize("words", ["", "a\x00b", "two\nlines", "\x85", "\u202eright to left", "long" * 200])
def test_an_erasure_with_words_that_could_not_be_written_down_is_refused(field: str, words: str) -> None:
    """PostgreSQL takes no NUL in a text: a batch with one would be tried for ever."""
    told = change(EraseCommand, 1)
    value = json.dumps({**told.model_dump(mode="json"), field: words}).encode()
    good = record(told, key=KEY, event_id=command_id(told.signature_id, EraseCommand.TYPE))
    error = invalid(value, headers=cast("Headers", good.headers))
    assert (error.reason, error.detail.partition(":")[0]) == ("schema", field)


def test_a_field_that_a_later_version_added_is_ignored() -> None:
    assert HANDLER.decode(record(with_field("mood", "calm"), key=KEY, headers=headers_of())).command == ADA


@pytest.mark.parametrize(
    "headers",
    [
        [("ce_id", b"1")],
        headers_of(specversion=b"0.3"),
        headers_of(specversion=None),
        headers_of(id=None),
        headers_of(type=None),
        headers_of(id=b""),
        headers_of(id=b"\xff"),
    ],
)
def test_a_record_without_the_headers_of_an_event_is_no_command(headers: Headers) -> None:
    assert invalid(ADA.model_dump_json().encode(), headers=headers).reason == "not_a_cloud_event"


@pytest.mark.parametrize("other", [SignatureVerified.TYPE, "groundswell.signature.sign.v2", "x"])
def test_another_event_is_no_command(other: str) -> None:
    error = invalid(ADA.model_dump_json().encode(), headers=headers_of(type=other.encode()))
    assert error.reason == "unknown_type"
    assert other not in error.detail


def test_a_record_without_a_value_is_no_command() -> None:
    assert invalid(None).reason == "no_value"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"", "(body)"),
        (b"\xff\xfe", "(body)"),
        (b"[]", "(body)"),
        (b'{"email": "ada@la', "(body)"),
        (b"[" * 5_000, "(body)"),
        (with_field("email", None), "email"),
        (with_field("email", "a"), "email"),
        (with_field("name", ""), "name"),
        (with_field("name", "A" * 201), "name"),
        (with_field("country", "nl"), "country"),
        (with_field("country", "NL\n"), "country"),
        (with_field("petition_id", "Open the path!"), "petition_id"),
        (with_field("signature_id", "42"), "signature_id"),
        (with_field("submitted_at", "2026-11-22T12:00:00"), "submitted_at"),
        (with_field("consent", "true"), "consent"),
        (with_field("comment", "A" * 2001), "comment"),
    ],
)
def test_a_value_that_is_no_command_is_told_by_its_field(value: bytes, field: str) -> None:
    error = invalid(value)
    assert error.reason == "schema"
    assert error.detail.startswith(f"{field}: ")


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59.5Z", "9999-12-31T23:59:59-12:00", "2100-01-01T00:00:00Z"],
)
def test_a_time_that_the_ledger_could_not_hold_or_nobody_can_have_signed_at_is_refused(moment: str) -> None:
    assert invalid(with_field("submitted_at", moment)).reason == "out_of_range"


@pytest.mark.parametrize(
    "arrived",
    [NOON, datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 12, 30, tzinfo=UTC)],
    ids=["now", "first", "last"],
)
def test_a_command_is_at_most_a_day_later_than_its_arrival_whatever_the_clock_of_this_process_says(
    arrived: datetime,
) -> None:
    latest = arrived + timedelta(days=1)
    told = sign(1, submitted_at=latest.astimezone(timezone(timedelta(hours=14))))
    key, event_id = signer_key_of(told).hex.encode(), told.signature_id
    assert HANDLER.decode(record(told, key=key, event_id=event_id, arrived=arrived)).moment == latest
    late = told.model_copy(update={"submitted_at": latest + timedelta(microseconds=1)})
    withdrawal = change(WithdrawCommand, 1, at=latest + timedelta(microseconds=1))
    for command, under in ((late, event_id), (withdrawal, event_id_of(withdrawal))):
        with pytest.raises(InvalidRecord, match=r"^out_of_range: "):
            HANDLER.decode(record(command, key=key, event_id=under, arrived=arrived))


@pytest.mark.parametrize("event_id", [b"42", b"no id", str(UUID(int=2)).encode()])
def test_a_sign_command_whose_event_id_is_not_the_signatures_is_refused(event_id: bytes) -> None:
    assert invalid(ADA.model_dump_json().encode(), headers=headers_of(id=event_id)).reason == "event_id"


@pytest.mark.parametrize("command", CHANGES)
def test_a_command_under_the_id_of_another_event_is_refused(command: Any) -> None:
    told = change(command, 1)
    for taken in (told.signature_id, command_id(told.signature_id, SignCommand.TYPE), UUID(int=7)):
        with pytest.raises(InvalidRecord, match=r"^event_id: "):
            HANDLER.decode(record(told, key=KEY, event_id=taken))


@pytest.mark.parametrize("key", [None, b"", b"open-the-river-path", KEY[:-1], KEY + b"0", b"\xff" * 16])
def test_a_key_that_is_no_signer_key_is_refused(key: bytes | None) -> None:
    assert invalid(ADA.model_dump_json().encode(), key=key).reason == "key"


def test_a_key_of_another_signer_petition_or_pepper_is_refused() -> None:
    others = (sign(1, email="bo@lakepost.example"), sign(1, email=ADA.email, petition_id="keep-the-night-ferry"))
    for other in others:
        assert invalid(ADA.model_dump_json().encode(), key=signer_key_of(other).hex.encode()).reason == (
            "signer_key_mismatch"
        )


@pytest.mark.parametrize(("rules", "domain"), [(1, "proton.me"), (LATEST, "proton.me")])
def test_a_key_by_the_mailbox_rules_of_its_petition_is_known_whichever_version_they_are(
    rules: int, domain: str
) -> None:
    command = sign(1, email="a.da+boats@protonmail.com")
    key = signer_key(PEPPER, command.petition_id, canonical_email(command.email, rules))
    read = HANDLER.decode(record(command, key=key.hex.encode(), event_id=command.signature_id))
    assert (read.signer_key, read.email_domain) == (key, domain)


def test_a_domain_is_compared_as_blocked_ones_are_whichever_version_the_key_is_of() -> None:
    command = sign(1, email="ada@posteo.net")
    old = signer_key(PEPPER, command.petition_id, canonical_email(command.email, 1))
    read = HANDLER.decode(record(command, key=old.hex.encode(), event_id=command.signature_id))
    assert Policy(blocked_email_domains=["posteo.net"]).blocks(read.email_domain)


@pytest.mark.parametrize(
    "email", ["nobody", "ada@@x.example", "ada@lakepost", '"ada marsh"@x.example', "ada@-x.example"]
)
def test_an_address_that_no_mail_reaches_is_refused_without_repeating_it(email: str) -> None:
    error = invalid(with_field("email", email))
    assert error.reason == "email_invalid"
    assert email not in str(error)


words = st.text(st.characters(codec="utf-8"), min_size=4, max_size=40)


@given(field=st.sampled_from(sorted(ADA.model_dump())), word=words)
def test_what_is_said_of_an_invalid_record_never_repeats_what_was_typed(field: str, word: str) -> None:
    typed = f"zq{word}qz"
    if field not in ("name", "comment", "postcode"):  # these take nearly anything
        assert typed.strip() not in str(invalid(with_field(field, typed)))


@given(value=st.binary(max_size=200), key=st.none() | st.binary(max_size=40), event_id=st.binary(max_size=40))
def test_no_record_whatever_is_in_it_is_a_bug(value: bytes, key: bytes | None, event_id: bytes) -> None:
    for headers in (headers_of(), headers_of(id=event_id), headers_of(type=WithdrawCommand.TYPE.encode())):
        with pytest.raises(InvalidRecord):
            HANDLER.decode(record(value, key=key, headers=headers))


# --------------------------------------------------------------------------------------------------- what it tells

moments = st.datetimes(
    min_value=datetime(2000, 1, 2), max_value=datetime(2099, 12, 30), timezones=st.sampled_from(
        [timezone(timedelta(hours=hours)) for hours in (-11, 0, 14)]
    )
)  # fmt: skip


def row(kind: CountChange = "verified", *, signed_at: datetime = NOON, occurred_at: datetime = NOON) -> LedgerRow:
    delta = 1 if kind == "verified" else -1
    return LedgerRow(3, 7, UUID(int=9), PATH, UUID(int=1), kind, delta, "NL", signed_at, occurred_at)


def as_stored(told: LedgerRow) -> LedgerRow:
    """The row as it comes back from PostgreSQL: the same moments, in UTC."""
    return told._replace(signed_at=told.signed_at.astimezone(UTC), occurred_at=told.occurred_at.astimezone(UTC))


def attribute(record: Record, name: str) -> bytes:
    return dict(record.headers)[f"ce_{name}"]


@given(kind=st.sampled_from(["verified", "withdrawn", "invalidated"]), signed_at=moments, occurred_at=moments)
def test_a_fact_is_the_same_at_every_replay(kind: CountChange, signed_at: datetime, occurred_at: datetime) -> None:
    first = row(kind, signed_at=signed_at, occurred_at=occurred_at)
    assert fact_record(first) == fact_record(as_stored(first))


@given(kind=st.sampled_from(["verified", "withdrawn", "invalidated"]), signed_at=moments, occurred_at=moments)
def test_a_fact_is_written_as_its_model_would_write_it(
    kind: CountChange, signed_at: datetime, occurred_at: datetime
) -> None:
    told = as_stored(row(kind, signed_at=signed_at, occurred_at=occurred_at))
    fields = {name: value for name, value in told._asdict().items() if name not in ("event_id", "kind")}
    model = SignatureVerified(**fields) if kind == "verified" else SignatureRevoked(**fields, cause=kind)
    assert fact_record(told).value == model.model_dump_json().encode()


@pytest.mark.parametrize(
    ("kind", "fact"),
    [("verified", SignatureVerified), ("withdrawn", SignatureRevoked), ("invalidated", SignatureRevoked)],
)
def test_a_fact_says_what_the_ledger_says_and_nothing_of_the_person(kind: CountChange, fact: Any) -> None:
    told = fact_record(row(kind))
    read = fact.model_validate_json(told.value or b"")
    assert (told.key, attribute(told, "type"), attribute(told, "id")) == (
        PATH.encode(),
        fact.TYPE.encode(),
        str(UUID(int=9)).encode(),
    )
    assert (read.lane, read.position, read.delta, read.country) == (3, 7, 1 if kind == "verified" else -1, "NL")
    assert set(json.loads(told.value or b"")) == {
        "signature_id", "petition_id", "lane", "position", "country", "signed_at", "occurred_at", "delta",
        *(["cause"] if kind != "verified" else []),
    }  # fmt: skip


@given(submitted_at=moments)
def test_a_refusal_is_the_same_at_every_replay(submitted_at: datetime) -> None:
    first = RefusedSignature(submission(sign(1, at=submitted_at)), "duplicate", "already_signed", submitted_at)
    retried = submission(sign(1, at=submitted_at + timedelta(hours=1)))
    again = RefusedSignature(retried, "duplicate", "already_signed", submitted_at.astimezone(UTC))
    assert rejection_record(first) == rejection_record(again)


def test_a_refusal_says_which_signature_and_why_and_nothing_of_the_person() -> None:
    told = rejection_record(RefusedSignature(submission(ADA), "rejected", "petition_closed", NOON))
    read = SignatureRejected.model_validate_json(told.value or b"")
    assert (read.signature_id, read.outcome, read.reason) == (ADA.signature_id, "rejected", "petition_closed")
    assert attribute(told, "id") != str(ADA.signature_id).encode(), "the signature's own event has that id"
    assert b"lakepost" not in (told.value or b"")
    assert b"Marsh" not in (told.value or b"")
