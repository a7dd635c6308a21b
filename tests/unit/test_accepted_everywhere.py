"""No service refuses what an earlier one accepted: petitions and signatures, from ingest's answer through every service.

In one process, with the services' own functions. The extremes go through the real parts in
tests/integration/whole/test_exactly_once.py.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from unittest.mock import patch
from uuid import UUID

import httpx
from hypothesis import given
from hypothesis import strategies as st

from services.notify.deliveries import Claim, deliveries_for
from services.notify.mail.letter import MailWriter
from services.tally.counting.handlers import decode as decode_fact
from services.verify.deciding.outcome import LedgerRow
from services.verify.deciding.rules import judge
from services.verify.handlers import VerifyHandler
from services.verify.publishing.records import fact_record
from shared.contract.catalogue import Catalogue
from shared.contract.events import MilestoneReached, PetitionChanged
from shared.contract.topics import PETITIONS_CHANGED, SIGNATURES_SUBMITTED
from tests.support.hostile import as_json, repeatable
from tests.support.hostile_ingest import AS_ADMIN, JSON, SIGN, HostileIngest, form, multipart
from tests.support.signing import PATH, PEPPER, MemoryProducer, record
from tests.support.tally_read_fakes import ReadSide, tally

INGEST: Final = HostileIngest()
WRITER: Final = MailWriter(mail_from="Groundswell <petitions@groundswell.example>", pages_url="https://pages.example")
VERIFY: Final = VerifyHandler(
    catalogue=Catalogue(),
    feed=cast("Any", None),
    store=cast("Any", None),
    producer=MemoryProducer(),
    metrics=cast("Any", None),
    pepper=PEPPER,
)

_ODD: Final = st.sampled_from(
    [
        "\u00a0",
        "\u200b",
        "\u3164",
        "\u200d",
        "e\u0301",
        "\u0958",
        "\ufb2c",
        "ß",
        "İ",
        "🚆",
        "\ufe0f",
        "ﬁ",
        "\r\n",
        "محمد",
        "\u202e",
        "<b>",
        "{{",
        "'",
    ]
)
words: Final = st.lists(st.sampled_from(["Robin", "Zoë", "李", "a", " ", ",", "."]) | _ODD, min_size=1, max_size=8).map(
    "".join
)
ends: Final = st.sampled_from(["", " ", "\u00a0", "\u3000", "\u200b", "\ufeff"])
addresses: Final = st.builds(
    lambda before, local, at, domain, after: f"{before}{local}{at}{domain}{after}",
    ends,
    st.sampled_from(["post", "Ｐost", "p.o+st", "рост", "po'st", "p" * 64, "ﬁsh", "İ", "straße"]),
    st.sampled_from(["@", "＠", "﹫"]),
    st.sampled_from(
        [
            "council.example",
            "Bücher.example",
            "xn--bcher-kva.example",
            "straße.example",
            "gmail.com",
            "例え.example",
            "council.example.",
            "council",
            "x.invalid",
            "ﬁsh.example",
        ]
    ),
    ends,
)
moments: Final = st.none() | st.sampled_from(
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59.999999Z",
        "2026-11-22T12:00:00+05:45",
        "2100-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-05:00",
        "9999-12-31T23:59:59.999999Z",
    ]
)
petitions: Final = st.fixed_dictionaries(
    {
        "organisation": st.fixed_dictionaries({"slug": st.just("open-rails"), "name": words}),
        "title": words,
        "text": words,
        "targets": st.lists(
            st.fixed_dictionaries(
                {
                    "target_id": st.just("council"),
                    "name": words,
                    "kind": st.sampled_from(["person", "body"]),
                    "email": addresses,
                }
            ),
            min_size=1,
            max_size=1,
        ),
        "milestones": st.sampled_from([[], [1], [1, 10_000_000_000]]),
        "opens_at": moments,
        "closes_at": moments,
        "policy": st.fixed_dictionaries(
            {
                "countries": st.sampled_from([None, ["NL"], ["nl", "NL", "de"], ["ＢＥ"]]),
                "blocked_email_domains": st.sampled_from([[], ["@trash.example"], ["*.Bücher.example"]]),
                "require_consent": st.booleans(),
            }
        ),
    }
)
submissions: Final = st.fixed_dictionaries(
    {
        "email": addresses,
        "name": words,
        "country": st.sampled_from(["NL", "nl", "ｄｅ", "BE", "UK", "ß"]),
        "postcode": words,
        "comment": words,
        "consent": st.booleans(),
    }
)


async def accepted_petition(state: dict[str, Any]) -> PetitionChanged | None:
    """The petition as its readers find it on the topic, if ingest takes it."""
    INGEST.producer.published.clear()
    with patch("services.ingest.petitions.changes._SEEN_SECONDS", 0.0):
        answer = await INGEST.ask(
            "PUT", f"/v1/petitions/{PATH}".encode(), [AS_ADMIN, JSON], [as_json(state)], b"replace=true", repeats=True
        )
    assert answer is not None
    if answer.status == 422:
        assert all(error["code"] and error["problem"] for error in json.loads(answer.body)["errors"])
        return None
    [published] = INGEST.producer.on(PETITIONS_CHANGED.name)
    found = PetitionChanged.model_validate_json(published.value or b"")
    assert json.loads(answer.body) == json.loads(found.model_dump_json()), "what is answered is what is published"
    return found


async def is_shown(petition: PetitionChanged) -> None:
    """On its page and its organisation's, and by the API."""
    side = ReadSide()
    side.catalogue.apply(petition)
    side.reader.put(tally(PATH, count=3))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(side.app()), base_url="http://tally") as client:
        for path in (
            f"/p/{PATH}",
            f"/p/{PATH}/thanks",
            "/o/open-rails",
            f"/v1/petitions/{PATH}/tally",
            "/v1/organisations/open-rails",
        ):
            assert (await client.get(path)).status_code == 200, path


def is_mailed(petition: PetitionChanged) -> None:
    """To each of its targets."""
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    reached = MilestoneReached(petition_id=PATH, threshold=1, count=3, revision=3, reached_at=moment)
    for delivery in deliveries_for(reached, petition):
        assert delivery.email == petition.targets[0].email
        claim = Claim(
            delivery=delivery, folded=(), chosen_at=moment, attempts=0, deferred_for=timedelta(0), taken_over=False
        )
        mail = WRITER.write(claim)
        assert mail.recipient.count("@") == 1
        assert mail.content.isascii() or mail.utf8


@repeatable(200)
@given(state=petitions)
async def test_a_petition_that_is_accepted_is_shown_and_mailed(state: dict[str, Any]) -> None:
    petition = await accepted_petition(state)
    if petition is not None:
        await is_shown(petition)
        is_mailed(petition)


@repeatable(300)
@given(state=petitions, fields=submissions, way=st.sampled_from(["json", "form", "multipart"]))
async def test_a_signature_that_is_accepted_stands_and_is_counted(
    state: dict[str, Any], fields: dict[str, Any], way: str
) -> None:
    petition = await accepted_petition({**state, "title": "T", "text": "t", "opens_at": None, "closes_at": None})
    if petition is None:
        return
    INGEST.catalogue.apply(petition)
    texts = {name: "on" if value is True else value for name, value in fields.items() if value is not False}
    kind, body = {
        "json": (b"application/json", as_json(fields)),
        "form": (b"application/x-www-form-urlencoded", form(texts)),
        "multipart": (b"multipart/form-data; boundary=b", multipart(texts)),
    }[way]
    INGEST.producer.published.clear()
    answer = await INGEST.ask("POST", SIGN, [(b"content-type", kind)], [body])
    assert answer is not None
    if answer.status != 202:
        assert answer.status == 422
        return
    [command] = INGEST.producer.on(SIGNATURES_SUBMITTED.name)
    read = VERIFY.decode(record(command.value, key=command.key, headers=command.headers))
    assert judge(read, petition).state == "verified"
    signed = UUID(json.loads(answer.body)["signature_id"])
    row = LedgerRow(0, 1, signed, PATH, signed, "verified", 1, read.command.country, read.moment, read.moment)  # type: ignore[union-attr]
    fact = fact_record(row)
    assert decode_fact(record(fact.value, key=fact.key, headers=fact.headers))["country"] == row.country
