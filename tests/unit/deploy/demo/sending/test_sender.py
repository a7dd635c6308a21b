"""The sender sends everything with exactly one effect each, whatever the server answers to single requests."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest

from deploy.demo.plan.surge import Surge
from deploy.demo.sending.requests import refusal_reason
from deploy.demo.sending.sender import Sender
from tests.unit.deploy.demo.sending.fake_ingest import FakeIngest, Reply, Request, fake_ingest


def small_surge() -> Surge:
    surge = Surge(scale=0.002)
    surge.poison = []  # it goes to Kafka, not here
    return surge


def signature_id(petition: str, key: str) -> str:
    return hashlib.sha256(f"{petition} {key}".encode()).hexdigest()[:32]


def accepts_everything(request: Request) -> Reply:
    petition = request.path.split("/")[3]
    if request.path.endswith("/batch"):
        keys = [json.loads(line)["idempotency_key"] for line in request.body.split(b"\n")]
        results = [
            {"line": number, "status": 202, "signature_id": signature_id(petition, key)}
            for number, key in enumerate(keys, 1)
        ]
        return 207, {}, json.dumps({"results": results}).encode()
    if "text/html" in request.headers["accept"]:
        return 303, {"Location": f"/p/{petition}/thanks"}, b""
    return 202, {}, json.dumps({"signature_id": signature_id(petition, request.headers["idempotency-key"])}).encode()


async def sent(surge: Surge, reply: Callable[[Request], Reply | None]) -> tuple[Sender, FakeIngest]:
    async with fake_ingest(reply) as fake:
        sender = Sender(
            surge, ingest_url=fake.url, api_key="key-of-a-partner", bootstrap_servers="nowhere:1", security={}
        )
        await sender.send()
    return sender, fake


def keys_by_request(requests: list[Request]) -> Counter[str]:
    keys: Counter[str] = Counter()
    for request in requests:
        if request.path.endswith("/batch"):
            keys.update(json.loads(line)["idempotency_key"] for line in request.body.split(b"\n"))
        else:
            keys[request.headers["idempotency-key"]] += 1
    return keys


async def test_every_submission_is_sent_under_a_key_of_its_own_and_only_deliberate_retries_repeat_one() -> None:
    surge = small_surge()
    sender, fake = await sent(surge, accepts_everything)
    keys = keys_by_request(fake.requests)
    assert len(keys) == surge.submissions == sender.progress.accepted == sender.progress.answered.total()
    assert sum(number - 1 for number in keys.values()) == sender.progress.retries > 0
    assert sender.progress.singles == len(surge.singles)
    assert sender.progress.surprises == []
    assert all(request.headers["x-api-key"] == "key-of-a-partner" for request in fake.requests)


async def test_forms_and_batches_say_what_their_submissions_say() -> None:
    surge = small_surge()
    _, fake = await sent(surge, accepts_everything)
    emails: set[str] = set()
    for request in fake.requests:
        kind = request.headers["content-type"]
        if kind == "application/x-www-form-urlencoded":
            form = parse_qs(request.body.decode(), keep_blank_values=True)
            emails.update(form.get("email", []))
            assert form.get("consent", ["on"]) == ["on"]
        else:
            lines = request.body.split(b"\n") if kind == "application/x-ndjson" else [request.body]
            emails.update(body["email"] for body in map(json.loads, lines) if "email" in body)
    bodies = [json.loads(single.submission.body) for single in surge.singles]
    bodies += [json.loads(line.body) for batch in surge.batches for line in batch.lines]
    assert emails == {body["email"] for body in bodies if "email" in body}


async def test_what_is_put_off_or_cut_off_is_sent_again_under_the_same_key_and_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deploy.demo.sending.sender._AGAIN_SECONDS", 0.01)
    seen: Counter[str] = Counter()
    surge = small_surge()

    def moody(request: Request) -> Reply | None:
        seen[request.path + request.headers.get("idempotency-key", "")] += 1
        if seen.total() % 7 == 0:
            return None
        if seen.total() % 5 == 0:
            return 503, {"Retry-After": "0"}, b"{}"
        if request.path.endswith("/batch") and seen[request.path] == 1:
            status, headers, body = accepts_everything(request)
            results = json.loads(body)["results"]
            results[0] = {"line": 1, "status": 503, "problem": {"type": "urn:groundswell:problem:kafka_away"}}
            return status, headers, json.dumps({"results": results}).encode()
        return accepts_everything(request)

    sender, _ = await sent(surge, moody)
    assert sender.progress.put_off > 10
    assert sender.progress.accepted == sender.progress.answered.total() == surge.submissions
    assert sender.progress.surprises == []


async def test_refusals_are_counted_by_petition_and_reason() -> None:
    surge = small_surge()

    def refuses(request: Request) -> Reply:
        if request.path.endswith("/batch"):
            lines = request.body.split(b"\n")
            problem = {
                "type": "urn:groundswell:problem:invalid_fields",
                "errors": [{"field": "email", "problem": "…"}],
            }
            results = [{"line": number, "status": 422, "problem": problem} for number, _ in enumerate(lines, 1)]
            return 207, {}, json.dumps({"results": results}).encode()
        return 410, {}, json.dumps({"type": "urn:groundswell:problem:petition_closed"}).encode()

    sender, _ = await sent(surge, refuses)
    reasons: Counter[str] = Counter()
    for (_, reason), number in sender.progress.refused.items():
        reasons[reason] += number
    assert reasons == {"petition_closed": len(surge.singles), "invalid_email": surge.submissions - len(surge.singles)}
    assert sender.progress.accepted == 0


async def test_a_retry_that_becomes_another_signature_is_a_surprise() -> None:
    numbers = iter(range(100_000))

    def forgets(request: Request) -> Reply:
        status, headers, body = accepts_everything(request)
        if status == 202:
            body = json.dumps({"signature_id": next(numbers)}).encode()
        return status, headers, body

    sender, _ = await sent(small_surge(), forgets)
    assert sender.progress.surprised > 0
    assert "another signature" in sender.progress.surprises[0]


async def test_an_error_of_the_server_is_a_surprise() -> None:
    def breaks(request: Request) -> Reply:
        if request.path.endswith("/batch") or "night-bus" not in request.path:
            return accepts_everything(request)
        return 500, {}, b"{}"

    sender, _ = await sent(small_surge(), breaks)
    assert sender.progress.surprised > 0
    assert "500" in sender.progress.surprises[0]


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ({"type": "urn:groundswell:problem:petition_closed"}, "petition_closed"),
        ({"type": "urn:groundswell:problem:invalid_fields", "errors": [{"field": "name"}]}, "invalid_name"),
        (
            {"type": "urn:groundswell:problem:invalid_fields", "errors": [{"field": "name", "code": "name_invalid"}]},
            "name_invalid",
        ),
        (
            {"type": "urn:groundswell:problem:invalid_fields", "errors": [{"field": "name"}, {"field": "email"}]},
            "invalid_fields",
        ),
        ({"type": "418 without a problem document"}, "418 without a problem document"),
    ],
)
def test_the_reason_of_a_refusal_is_its_wrong_field_or_its_name(problem: dict[str, object], reason: str) -> None:
    assert refusal_reason(problem) == reason
