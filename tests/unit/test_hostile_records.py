"""Whatever is on a topic: a record is read, or refused as invalid with words that hold nothing of it. Nothing else.

Through the functions that the services read with, on damaged and altered golden events, and on bytes that are no event.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import pytest
import structlog
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.notify.deliveries import deliveries_for
from services.notify.milestones.handlers import decode as decode_milestone
from services.tally.counting.handlers import decode as decode_fact
from services.tally.reading.live import Form, LiveHub
from services.tally.reading.live_feed import LiveFeed
from services.tally.reading.metrics import ReadMetrics
from services.verify.handlers import VerifyHandler
from shared.contract.catalogue import Catalogue
from shared.contract.events import (
    ConfirmCommand,
    EraseCommand,
    Event,
    InvalidateCommand,
    MilestoneReached,
    PetitionChanged,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    TallyUpdated,
    WithdrawCommand,
)
from shared.contract.identity import canonical_email, command_id, milestone_id, signer_key
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.consuming.dead_letters import DeadLetter, dead_letter_headers
from shared.kafka.records.headers import event_headers
from shared.runtime.failures import InvalidRecord
from tests.contract.golden_events import EXAMPLES
from tests.support.hostile import CANARY, as_json, broken_json, damaged, emails, mutated, repeatable, texts
from tests.support.signing import NOON, PEPPER, MemoryProducer, record

Record = ConsumerRecord[Any, Any]
GOLDEN: Final[dict[type[Event], Event]] = {type(example): example for example in EXAMPLES}
COMMANDS = (SignCommand, ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand)
FACTS = (SignatureVerified, SignatureRevoked)
SECRETS: Final = ("ann@mail", "Ann Example", "1234 AB", "The last bus", "Kim, helpdesk", "Request 4711", CANARY)
"""Contents of golden events that no message may repeat."""

verify = VerifyHandler(
    catalogue=Catalogue(),
    feed=cast("Any", None),
    store=cast("Any", None),
    producer=MemoryProducer(),
    metrics=cast("Any", None),
    pepper=PEPPER,
)


def whole(event: Event) -> Record:
    """A golden event as its writer puts it on the topic."""
    fields: dict[str, Any] = dict(event)
    match event:
        case SignCommand():
            event_id, key = event.signature_id, signer_key(PEPPER, event.petition_id, canonical_email(event.email)).hex
        case ConfirmCommand() | WithdrawCommand() | InvalidateCommand() | EraseCommand():
            event_id, key = command_id(event.signature_id, event.TYPE), UUID(int=7).hex
        case MilestoneReached():
            event_id, key = milestone_id(event.petition_id, event.threshold), event.petition_id
        case _:
            event_id, key = UUID(int=1), fields["petition_id"]
    headers = event_headers(type(event), event_id=event_id, source="/x", subject="night-bus", time=NOON)
    return record(event, key=key.encode(), headers=headers)


def replaced(one: Record, **changes: Any) -> Record:
    return ConsumerRecord(**{**vars_of(one), **changes})


def vars_of(one: Record) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


odd_header_values = st.one_of(
    st.none(), st.binary(max_size=30), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@st.composite
def hostile_records(draw: st.DrawFn, *events: type[Event]) -> Record:
    """A golden event of one of these types with its value, headers or key made worse; sometimes with only one of them."""
    event = draw(st.sampled_from(events))
    one = whole(GOLDEN[event])
    if draw(st.integers(0, 3)):
        value = draw(
            st.one_of(
                mutated(json.loads(one.value or b"")).map(as_json),
                damaged(one.value or b""),
                broken_json,
                st.none(),
                st.binary(max_size=60),
            )
        )
        one = replaced(one, value=value)
    if not draw(st.integers(0, 2)):
        headers: list[tuple[str, bytes | None]] = list(one.headers)
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, len(headers)))
            match draw(st.integers(0, 2)):
                case 0 if at < len(headers):
                    headers[at] = (headers[at][0], draw(odd_header_values))
                case 1 if at < len(headers):
                    del headers[at]
                case _:
                    headers.insert(at, (draw(st.sampled_from(["ce_id", "ce_type", CANARY])), draw(odd_header_values)))
        one = replaced(one, headers=headers)
    if not draw(st.integers(0, 2)):
        one = replaced(one, key=draw(odd_header_values))
    return one


@dataclass
class Reader:
    """A topic's events and how they are read."""

    events: tuple[type[Event], ...]
    decode: Callable[[Record], object]


def refusal(decode: Callable[[Record], object], one: Record) -> InvalidRecord | None:
    """How a record is refused; None when it is read."""
    try:
        decode(one)
    except InvalidRecord as refused:
        return refused
    return None


READERS = {
    "signatures.submitted": Reader(COMMANDS, verify.decode),
    "signatures.verified": Reader(FACTS, decode_fact),
    "milestones.reached": Reader((MilestoneReached,), decode_milestone),
}


@pytest.mark.parametrize("topic", READERS)
def test_what_its_writer_puts_on_a_topic_is_read(topic: str) -> None:
    for event in READERS[topic].events:
        READERS[topic].decode(whole(GOLDEN[event]))


@pytest.mark.parametrize("topic", READERS)
@repeatable(120)
@given(data=st.data())
def test_a_record_is_read_or_refused_in_words_that_hold_nothing_of_it(topic: str, data: st.DataObject) -> None:
    reader = READERS[topic]
    one = data.draw(hostile_records(*reader.events))
    refused = refusal(reader.decode, one)
    if refused is None:
        return
    said = f"{refused} {refused.reason} {refused.detail} {refused!r}"
    assert not [secret for secret in SECRETS if secret in said]
    assert refused.__cause__ is None
    assert refused.__context__ is None or refused.__suppress_context__, "a traceback would show what it came from"
    letter = dead_letter_headers(DeadLetter(one, refused))
    assert letter[: len(one.headers)] == list(one.headers)
    assert all(len(value or b"") < 2_100 for _, value in letter[len(one.headers) :])


@repeatable(150)
@given(email=emails | texts)
def test_an_address_that_verify_cannot_read_is_refused_without_repeating_it(email: str) -> None:
    golden = GOLDEN[SignCommand]
    value = {**json.loads(golden.model_dump_json()), "email": email, "name": CANARY}
    refused = refusal(verify.decode, replaced(whole(golden), value=as_json(value)))
    assert CANARY not in str(refused)
    assert len(email) < 4 or email not in str(refused)


@repeatable(120)
@given(one=hostile_records(PetitionChanged, MilestoneReached))
async def test_whatever_is_on_petitions_changed_a_petition_is_known_or_keeps_its_state(one: Record) -> None:
    catalogue = Catalogue()
    feed = CatalogueFeed(catalogue, CollectorRegistry(), on_bug=lambda bug: pytest.fail(repr(bug)))
    with structlog.testing.capture_logs() as lines:
        await feed._on_records((whole(GOLDEN[PetitionChanged]), one))
    assert not [secret for secret in (*SECRETS, "head@town") if secret in str(lines)]
    for petition in catalogue:
        # What every service does with any petition that it knows.
        petition.policy.blocks("mail.example")
        deliveries_for(cast("MilestoneReached", GOLDEN[MilestoneReached]), petition)


@repeatable(120)
@given(one=hostile_records(TallyUpdated))
async def test_whatever_is_on_tallies_updated_the_live_count_goes_on(one: Record) -> None:
    catalogue, registry = Catalogue(), CollectorRegistry()
    metrics = ReadMetrics(registry)
    hub = LiveHub(catalogue, metrics)
    feed = LiveFeed(hub, metrics, on_overtaken=lambda *_: None, on_bug=lambda bug: pytest.fail(repr(bug)))
    watching = [hub.subscribe(form, "night-bus") for form in (Form.TALLY, Form.COUNT)]
    with structlog.testing.capture_logs() as lines:
        await feed._on_records((whole(GOLDEN[TallyUpdated]), one))
    assert CANARY not in str(lines)
    for subscription in watching:
        # What a browser reads: one event, whatever line breaks its names of countries and minutes have.
        fields = [line.partition(b": ")[0] for line in subscription._take().splitlines()]
        assert fields == [b"event", b"id", b"data", b""]


def test_nothing_here_was_logged_by_way_of_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for reader in READERS.values():
            with pytest.raises(InvalidRecord):
                reader.decode(record(b"{", headers=[("ce_id", CANARY.encode())]))
    assert caplog.text == ""
