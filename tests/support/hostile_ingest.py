"""ingest without Kafka, PostgreSQL and uvicorn, checks that apply to each of its answers, and requests of hostile clients."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import unquote, urlencode
from uuid import UUID

from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message

from services.ingest.access.access import Access
from services.ingest.admin.events import AdminEvent, AdminEvents, LastChange
from services.ingest.metrics import IngestMetrics
from services.ingest.petitions.calls import PetitionEndpoints
from services.ingest.petitions.changes import PetitionChanges
from services.ingest.problems import KINDS
from services.ingest.routes import Dispatcher, other_routes
from services.ingest.settings import Settings
from services.ingest.signatures.calls import SignatureEndpoints
from services.ingest.signatures.store import OutcomeStore
from services.ingest.signing.batch import BatchEndpoint
from services.ingest.signing.clock import Clock
from services.ingest.signing.intake import Intake
from services.ingest.signing.sign import SignEndpoint
from services.ingest.web.answers import Answers
from services.ingest.web.clients import Clients
from services.ingest.web.limits import ClientRate, InFlight
from services.verify.handlers import VerifyHandler
from shared.contract.catalogue import Catalogue
from shared.contract.topics import SIGNATURES_SUBMITTED
from shared.kafka.records.record import Headers
from tests.support.hostile import CANARY, as_json, broken_json, damaged, emails, mutated, scalars, texts, values
from tests.support.signing import PATH, PEPPER, MemoryProducer, petition, record

ADMIN, KEY = "admin-token-of-tests", "partner-key-of-tests"
PAGES = "https://pages.example"
GOOD: Final = {"email": "ann@mail.example", "name": "Ann", "country": "NL", "postcode": "1", "comment": "Yes\nyes"}
JSON = (b"content-type", b"application/json")
AS_ADMIN = (b"authorization", f"Bearer {ADMIN}".encode())
SIGN = f"/v1/petitions/{PATH}/signatures".encode()
ALLOWED = {kind.status for kind in KINDS.values()} - {500} | {200, 201, 202, 207, 303, 307}


NOT_IN_A_LINE = {
    chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}
"""Control characters, line separators, and characters that change the writing direction."""


class NoOutcomes(OutcomeStore):
    """Nothing is decided yet."""

    def __init__(self) -> None:
        """Without a database."""

    async def find(self, signature_id: UUID) -> None:
        return None


class EventsInMemory(AdminEvents):
    """No PostgreSQL: every change is the first one, and its record is written."""

    def __init__(self, metrics: IngestMetrics) -> None:
        self._metrics = metrics

    async def last_change(self, petition_id: str) -> tuple[LastChange | None, int]:
        return None, 1_795_344_127_000

    async def ask_change(self, event: AdminEvent, *, version: int, last: LastChange | None) -> bool:
        return True

    async def ask(self, event: AdminEvent) -> None:
        """It is."""

    async def finish(self, event: AdminEvent, outcome: str) -> str:
        self.say(event, outcome)
        return outcome


async def _read_already() -> None:
    """The catalogue is always up to date."""


@dataclass
class Answer:
    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        found = [value for key, value in cast("list[tuple[bytes, bytes]]", self.headers) if key == name]
        assert len(found) <= 1
        return found[0] if found else None


@dataclass
class HostileIngest:
    """ingest without Kafka, PostgreSQL and uvicorn. One for all requests: `ingest_anew` forgets what was published."""

    producer: MemoryProducer = field(default_factory=MemoryProducer)
    bugs: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = Settings(
            signer_pepper=PEPPER.decode(), admin_token=ADMIN, api_keys=KEY, wrong_credentials_rate="off"
        )
        metrics = IngestMetrics(CollectorRegistry(), in_flight=lambda: 0)
        self.catalogue = catalogue = Catalogue()
        catalogue.apply(petition())
        clients, rate, in_flight = Clients(), ClientRate("off"), InFlight(10)
        access, answers = Access(settings, clients), Answers(pages_url=PAGES, metrics=metrics)
        intake = Intake(
            catalogue=catalogue,
            catalogue_complete=lambda: True,
            producer=self.producer,
            clock=Clock(metrics, tolerance=60),
            pepper=PEPPER,
            on_bug=self.bugs.append,
        )
        events = EventsInMemory(metrics)
        sign = SignEndpoint(
            intake=intake,
            access=access,
            clients=clients,
            rate=rate,
            in_flight=in_flight,
            answers=answers,
            metrics=metrics,
        )
        others = other_routes(
            sign=sign,
            batch=BatchEndpoint(intake=intake, access=access, batches=InFlight(4), metrics=metrics),
            petitions=PetitionEndpoints(
                intake=intake,
                catalogue=catalogue,
                access=access,
                changes=PetitionChanges(intake=intake, catch_up=_read_already, events=events, metrics=metrics),
                events=events,
            ),
            signatures=SignatureEndpoints(
                intake=intake,
                store=NoOutcomes(),
                access=access,
                events=events,
                clients=clients,
                rate=rate,
                answers=answers,
                metrics=metrics,
                pepper=PEPPER,
            ),
            answers=answers,
            metrics=metrics,
        )
        self.app: ASGIApp = Dispatcher(sign=sign, others=others, in_flight=in_flight, answers=answers)

    async def ask(
        self,
        method: str,
        raw_path: bytes,
        headers: Sequence[tuple[bytes, bytes]] = (),
        chunks: Sequence[bytes | None] = (b"",),
        query: bytes = b"",
        *,
        repeats: bool = False,
    ) -> Answer | None:
        """The answer to a request, after the checks that apply to all answers; None for a client that disconnects.

        Args:
            raw_path: As on the wire; its percent encoding is taken out as uvicorn does it.
            chunks: The body in pieces; None is a client that disconnects.
            repeats: Whether the answer may contain the input.
        """
        pieces: list[Message] = [
            {"type": "http.disconnect"}
            if chunk is None
            else {"type": "http.request", "body": chunk, "more_body": number + 1 < len(chunks)}
            for number, chunk in enumerate(chunks)
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            return pieces.pop(0) if pieces else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in headers],
            "client": ("192.0.2.7", 4711),
            "server": ("127.0.0.1", 8001),
            "state": {},
        }
        await self.app(scope, receive, send)
        assert self.bugs == []
        if None in chunks and not sent:
            return None
        start, *rest = sent
        assert start["type"] == "http.response.start"
        answer = Answer(start["status"], start["headers"], b"".join(part["body"] for part in rest))
        check_answer(answer, repeats=repeats)
        return answer


ONLY = HostileIngest()


def ingest_anew() -> HostileIngest:
    """An ingest that has published nothing."""
    ONLY.producer.published.clear()
    return ONLY


_SITE = re.escape(PAGES).encode()
EXPECTED_LOCATIONS = (
    re.compile(rb"/v1/signatures/[0-9a-f-]{36}"),
    re.compile(_SITE + rb"/p/" + re.escape(PATH).encode() + rb"/thanks\?signature=[0-9a-f-]{36}"),
    re.compile(_SITE + rb"/p/[A-Za-z0-9._~%-]*\?refused=[a-z_]+(&e=[a-z]+:[a-z_]+)*(&wait=[0-9]+)?"),
    re.compile(_SITE + rb"/p/[A-Za-z0-9._~%-]*"),
)
"""A status, the thank-you page, the page with a refused form, and the page of a form that is loaded again."""


def check_answer(answer: Answer, *, repeats: bool) -> None:
    """Checks that no request may violate."""
    assert answer.status in ALLOWED
    assert repeats or CANARY.encode() not in answer.body
    for name, value in answer.headers:
        assert not set(cast("bytes", name) + value) & set(b"\r\n\0")
        assert CANARY.encode() not in value
        assert cast("bytes", name) != b"set-cookie"
    location = answer.header(b"location")
    if location is not None:
        assert any(expected.fullmatch(location) for expected in EXPECTED_LOCATIONS), location
    if answer.status == 307:
        assert answer.header(b"cache-control") == b"no-store"
    kind = (answer.header(b"content-type") or b"").partition(b";")[0]
    if answer.status >= 400 and answer.body and kind != b"text/html":
        assert kind == b"application/problem+json"
        problem = json.loads(answer.body)
        assert (problem["status"], problem["type"].rpartition(":")[2] in KINDS) == (answer.status, True)
        assert answer.header(b"x-content-type-options") == b"nosniff"
    if kind == b"text/html":
        assert answer.status >= 400
        assert b"default-src 'none'" in (answer.header(b"content-security-policy") or b"")
        assert b"<script" not in answer.body


def check_published(ingest: HostileIngest) -> int:
    """Check that verify can read every command that was accepted. Returns their number."""
    verify = VerifyHandler(
        catalogue=Catalogue(),
        feed=cast("Any", None),
        store=cast("Any", None),
        producer=ingest.producer,
        metrics=cast("Any", None),
        pepper=PEPPER,
    )
    commands = ingest.producer.on(SIGNATURES_SUBMITTED.name)
    for command in commands:
        assert command.key is not None
        assert "@" not in command.key.decode()
        assert CANARY.encode() not in b"".join(value for _, value in command.headers)
        read = verify.decode(record(command.value, key=command.key, headers=command.headers))
        assert read.command.petition_id == PATH
    return len(commands)


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> list[bytes | None]:
    """`body` in pieces, perhaps empty ones, perhaps cut off by a client that disconnects."""
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    chunks: list[bytes | None] = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    if draw(st.integers(0, 15)) == 0:
        chunks.append(None)
    return chunks


def form(fields: Mapping[str, object]) -> bytes:
    return urlencode({name: str(value) for name, value in fields.items()}, errors="surrogatepass").encode()


def multipart(fields: Mapping[str, object], boundary: bytes = b"b") -> bytes:
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (boundary, name.encode("utf-8", "replace"), str(value).encode("utf-8", "replace"))
        for name, value in fields.items()
    ]
    return b"".join(parts) + b"--%s--\r\n" % boundary


submissions = st.one_of(
    st.just(GOOD),
    st.builds(lambda changes: {**GOOD, **changes}, st.dictionaries(st.sampled_from(["name", "comment"]), texts)),
    st.builds(lambda email: {**GOOD, "email": email}, emails),
    st.builds(
        lambda changes: {**GOOD, **changes},
        st.dictionaries(st.sampled_from([*GOOD, "consent", "idempotency_key", "else"]), scalars, max_size=2),
    ),
    mutated(GOOD).filter(lambda value: isinstance(value, dict)),
)
bodies = st.one_of(
    submissions.map(lambda fields: (b"application/json", as_json(fields))),
    submissions.map(lambda fields: (b"application/x-www-form-urlencoded", form(fields))),
    submissions.map(lambda fields: (b"multipart/form-data; boundary=b", multipart(fields))),
    values.map(lambda value: (b"application/json", as_json(value))),
    broken_json.map(lambda body: (b"application/json", body)),
    damaged(as_json(GOOD)).map(lambda body: (b"application/json", body)),
    damaged(form(GOOD)).map(lambda body: (b"application/x-www-form-urlencoded", body)),
    damaged(multipart(GOOD)).map(lambda body: (b"multipart/form-data; boundary=b", body)),
    st.binary(max_size=200).map(lambda body: (b"application/x-www-form-urlencoded", body)),
)
content_types = st.one_of(
    st.sampled_from(
        [
            b"",
            b";",
            b"application/json;charset=utf-7",
            b"APPLICATION/JSON",
            b"application/json, text/html",
            b"text/html",
            b"application/x-www-form-urlencoded; charset=iso-8859-1",
            b"multipart/form-data",
            b'multipart/form-data; boundary=""',
            b'multipart/form-data; boundary="\\"; charset=undefined',
            b"multipart/form-data; boundary=b; charset=undefined",
            b"multipart/form-data; boundary=b; charset=idna",
            b"multipart/form-data; boundary=b; charset=unicode_escape",
            b"multipart/form-data; boundary=b; charset=zip",
            b"multipart/form-data; boundary=b; charset=\x00",
            b"multipart/form-data; boundary=" + b"b" * 5_000,
            b"\xff\xfe",
        ]
    ),
    st.binary(max_size=30),
)
header_names = st.sampled_from(
    [
        b"accept",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"idempotency-key",
        b"authorization",
        b"x-api-key",
        b"cookie",
        b"x-forwarded-for",
        b"forwarded",
        b"x-forwarded-host",
        b"host",
        b"origin",
        b"expect",
        b"x-http-method-override",
        b"range",
        b"if-none-match",
        b"if-match",
        b"x-request-id",
    ]
)
header_values = st.one_of(
    st.sampled_from(
        [
            b"",
            b"text/html",
            b"text/html;q=nan,application/json;q=0.1",
            b"text/html;q=" + b"9" * 400,
            b"0",
            b"-1",
            b"1" * 5_000,
            b"00000000000000000000000000000000000000000000000001",
            b"0x10",
            "²".encode("latin-1"),
            b"chunked",
            b"gzip",
            b"Bearer ",
            b"Bearer " + CANARY.encode(),
            f"Bearer {KEY}".encode(),
            b"Basic YTpi",
            CANARY.encode(),
            CANARY.encode() * 1_000,
            b"evil.example\r\nX: y",
        ]
    ),
    st.binary(max_size=40),
)
headers_sent = st.lists(st.tuples(header_names, header_values), max_size=4)
