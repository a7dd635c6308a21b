"""The JSON API of tally's read side, over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from services.tally.reading.openapi import document
from tests.support.tally_read_fakes import BUS, CHANGED, HARBOUR, ReadSide, petition, tally

COMMITTED = Path(__file__).parents[5] / "docs" / "openapi-tally.json"


@pytest.fixture
def read_side() -> ReadSide:
    side = ReadSide()
    side.catalogue.apply(petition(HARBOUR))
    side.catalogue.apply(petition(BUS, title="Later night buses"))
    side.reader.put(tally(HARBOUR, 4_849))
    return side


@pytest.fixture
async def client(read_side: ReadSide) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=read_side.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pages.example") as client:
        yield client


async def test_the_tally_of_a_petition(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/v1/petitions/{HARBOUR}/tally")
    assert answer.status_code == 200
    assert answer.json() == {
        "petition_id": HARBOUR,
        "title": "Open the harbour baths in winter",
        "count": 4_849,
        "revision": 4_849,
        "epoch": 0,
        "countries": {"NL": 4_849},
        "minutes": {"2026-03-02T10:42Z": 4_849},
        "earlier": 0,
        "updated_at": "2026-03-01T12:00:00Z",
        "stale": False,
        "language": None,
        "next_milestone": 5_000,
        "milestones": [{"threshold": 1_000, "reached": True}, {"threshold": 5_000, "reached": False}],
    }
    assert answer.headers["cache-control"] == "public, max-age=1"


async def test_a_petition_without_signatures_has_a_tally_of_0(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/v1/petitions/{BUS}/tally")).json()["count"] == 0


@pytest.mark.parametrize("path", [f"/v1/petitions/{HARBOUR}/tally", "/v1/organisations/river-valley"])
async def test_who_has_the_current_version_gets_304_without_a_body(client: httpx.AsyncClient, path: str) -> None:
    etag = (await client.get(path)).headers["etag"]
    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        answer = await client.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert (await client.get(path, headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize("path", [f"/v1/petitions/{HARBOUR}/tally", "/v1/organisations/river-valley"])
async def test_the_version_changes_with_the_count_and_with_the_petition(
    client: httpx.AsyncClient, read_side: ReadSide, path: str
) -> None:
    versions = [(await client.get(path)).headers["etag"]]
    read_side.reader.put(tally(HARBOUR, 4_850))
    versions.append((await client.get(path)).headers["etag"])
    read_side.catalogue.apply(petition(HARBOUR, title="Baths", changed_at=CHANGED + timedelta(seconds=1)))
    versions.append((await client.get(path)).headers["etag"])
    assert len(set(versions)) == 3


async def test_an_organisation_and_its_petitions_are_read_in_one_round_trip(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    answer = await client.get("/v1/organisations/river-valley")
    body = answer.json()
    assert (body["name"], body["supporters"], body["petitions_started"]) == ("River Valley Together", 4_849, 2)
    assert body["petitions"][0] == {
        "petition_id": HARBOUR,
        "title": "Open the harbour baths in winter",
        "targets": [
            {"name": "The Harbour Council", "kind": "body"},
            {"name": "the Minister for Rivers", "kind": "person"},
        ],
        "language": None,
        "excerpt": "The baths close in October. We ask that they stay open. All winter.",
        "count": 4_849,
        "url": f"/p/{HARBOUR}",
        "open": True,
    }
    assert len(read_side.reader.calls) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/petitions/nothing/tally",
        "/v1/petitions/nothing/tally/stream",
        "/v1/organisations/nobody",
        "/v1/organisations/nobody/stream",
        "/v1/else",
    ],
)
async def test_what_does_not_exist_is_404_as_problem_details(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["status"] == 404


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/petitions/{HARBOUR}/tally",
        f"/v1/petitions/{HARBOUR}/tally/stream",
        "/v1/organisations/river-valley",
        "/v1/organisations/river-valley/stream",
    ],
)
async def test_while_redis_is_away_and_nothing_was_announced_clients_are_told_when_to_try_again(
    client: httpx.AsyncClient, read_side: ReadSide, path: str
) -> None:
    read_side.reader.go_away()
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) > 0
    assert read_side.metric("store_failures_total", cause="ConnectionError") == 1
    assert read_side.metric("stream_subscribers") == 0


async def test_while_redis_is_away_the_tally_is_the_one_that_was_announced_last_and_says_so(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    path = f"/v1/petitions/{HARBOUR}/tally"
    read_side.hub.publish(tally(HARBOUR, 4_849))
    read_side.reader.put(tally(HARBOUR, 4_849))
    fresh = await client.get(path)
    read_side.reader.go_away()
    for _ in range(30):
        answer = await client.get(path, headers={"if-none-match": fresh.headers["etag"]})
        assert answer.status_code == 200, "it is not known that it is unchanged"
        assert answer.json() == {**fresh.json(), "stale": True}
    assert fresh.json()["stale"] is False
    assert read_side.metric("answers_total", what="tally", outcome="stale") == 30
    assert read_side.metric("circuit_open") == 1
    assert len(read_side.reader.calls) <= 4, "one after the other asks whether Redis is back"
    not_modified = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert not_modified.status_code == 304


async def test_while_redis_is_away_an_organisations_sum_is_that_of_the_announced_counts(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.hub.publish(tally(HARBOUR, 4_849))
    read_side.reader.go_away()
    found = (await client.get("/v1/organisations/river-valley")).json()
    assert (found["supporters"], found["stale"]) == (4_849, True)
    counts = {one["petition_id"]: one["count"] for one in found["petitions"]}
    assert counts == {HARBOUR: 4_849, BUS: None}, "what nobody has announced is not 0"


async def test_a_connection_that_died_while_it_was_idle_costs_no_reader_an_error(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.reader.put(tally(HARBOUR, 7))
    read_side.reader.dead_connections = 1
    answer = await client.get(f"/v1/petitions/{HARBOUR}/tally")
    assert (answer.status_code, answer.json()["count"]) == (200, 7)
    assert not read_side.metric("store_failures_total", cause="ConnectionError")


async def test_a_count_that_redis_has_lost_is_served_from_what_was_announced(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.hub.publish(tally(HARBOUR, 4_849))
    read_side.reader.stored.clear()
    assert (await client.get(f"/v1/petitions/{HARBOUR}/tally")).json()["count"] == 4_849
    assert (await client.get("/v1/organisations/river-valley")).json()["supporters"] == 4_849
    assert read_side.metric("store_behind_total") == 2


async def test_a_parameter_that_is_given_twice_is_not_chosen_from(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/v1/petitions/{HARBOUR}/tally/stream?detail=count&detail=full")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "detail", "code": "detail_invalid", "problem": "must be given once"}]


async def test_a_stream_of_unknown_detail_is_422(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/v1/petitions/{HARBOUR}/tally/stream?detail=everything")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "detail", "code": "detail_invalid", "problem": "must be full or count"}
    ]


async def test_counts_cannot_be_written_here(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"/v1/petitions/{HARBOUR}/tally")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


async def test_a_head_of_a_stream_opens_none(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    answer = await client.head(f"/v1/petitions/{HARBOUR}/tally/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert read_side.metric("stream_subscribers") == 0


async def test_the_committed_openapi_document_is_the_one_that_is_served(client: httpx.AsyncClient) -> None:
    served = (await client.get("/openapi.json")).json()
    assert served == document()
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == served, "run: groundswell generated"


async def test_answers_have_the_fields_that_the_openapi_document_promises(client: httpx.AsyncClient) -> None:
    schemas = document()["components"]["schemas"]
    for path, schema in (
        (f"/v1/petitions/{HARBOUR}/tally", "TallyBody"),
        ("/v1/organisations/river-valley", "OrganisationBody"),
    ):
        assert set((await client.get(path)).json()) == set(schemas[schema]["properties"])
