"""Bounds of ingest: the rate per client, trusted proxies, and the number of requests in progress."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy.local.parts.kafka import KafkaBroker
from tests.support.running_ingest import AS_PARTNER, code, running_ingest


async def test_a_client_that_sends_too_much_waits_while_partners_and_other_calls_go_on(
    brokers: KafkaBroker, postgres_url: str, tmp_path: Path
) -> None:
    async with running_ingest(
        brokers, postgres_url=postgres_url, log_dir=tmp_path, INGEST_CLIENT_RATE="3/minute"
    ) as ingest:
        await ingest.start_petition("rate-limited")
        answers = [await ingest.sign("rate-limited") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 21
        assert (await ingest.sign("rate-limited", AS_PARTNER)).status_code == 202
        assert (await ingest.http.get(answers[0].headers["location"])).status_code == 200


async def test_beyond_the_rate_guesses_are_refused_unseen_and_those_who_were_right_there_go_on(
    brokers: KafkaBroker, postgres_url: str, tmp_path: Path
) -> None:
    async with running_ingest(
        brokers, postgres_url=postgres_url, log_dir=tmp_path, INGEST_WRONG_CREDENTIALS_RATE="5/hour"
    ) as ingest:
        await ingest.start_petition("guessed")  # the administrator is known here now; the partner is not yet
        signature = (await ingest.sign("guessed")).headers["location"]
        calls = [
            ("POST", "/v1/petitions/guessed/signatures"),
            ("POST", "/v1/petitions/guessed/signatures/batch"),
            ("PUT", "/v1/petitions/guessed"),
            ("GET", signature),
            ("POST", f"{signature}/withdraw"),
        ]
        for method, address in calls:
            wrong = await ingest.http.request(method, address, headers={"Authorization": "Bearer a-guess"})
            assert (wrong.status_code, code(wrong)) == (401, "credentials_wrong")
        for method, address in calls:
            for credentials in ({"X-API-Key": "another-guess"}, AS_PARTNER):  # right and wrong look the same
                unseen = await ingest.http.request(method, address, headers=credentials)
                assert (unseen.status_code, code(unseen)) == (429, "too_many_wrong_credentials")
                assert 1 <= int(unseen.headers["retry-after"]) <= 3_600
        await ingest.start_petition("guessed", title="Changed beside the guesser")
        assert (await ingest.sign("guessed", email="ann@mail.example")).status_code == 202
        refused = "groundswell_ingest_refused_total"
        assert await ingest.metric(f'{refused}{{reason="credentials_wrong"}}') == 5
        assert await ingest.metric(f'{refused}{{reason="too_many_wrong_credentials"}}') == 10
        assert await ingest.metric(f'{refused}{{reason="credentials_ambiguous"}}') == 0


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
async def test_behind_a_listed_proxy_every_client_has_its_own_rate_on_every_call(
    header: str, brokers: KafkaBroker, postgres_url: str, tmp_path: Path
) -> None:
    async with running_ingest(
        brokers,
        postgres_url=postgres_url,
        log_dir=tmp_path,
        INGEST_CLIENT_RATE="2/minute",
        INGEST_TRUSTED_PROXIES="127.0.0.1",
        INGEST_PROXY_HEADER=header,
    ) as ingest:
        await ingest.start_petition("proxied")

        def named(client: str, claim: str) -> dict[str, str]:
            """As the proxy sends it: the client's claim, followed by its real address."""
            form = "{}" if header == "x-forwarded-for" else "for={}"
            return {header: ", ".join(form.format(address) for address in (claim, client))}

        for client in ("203.0.113.5", "203.0.113.6"):
            signed = [await ingest.sign("proxied", named(client, f"1.1.1.{claim}")) for claim in range(3)]
            assert [answer.status_code for answer in signed] == [202, 202, 429]
            address = signed[0].headers["location"]
            asked = [await ingest.http.get(address, headers=named(client, f"1.1.1.{claim}")) for claim in range(3)]
            assert [answer.status_code for answer in asked] == [200, 200, 429]


async def test_whoever_connects_directly_cannot_choose_whom_it_counts_for(
    brokers: KafkaBroker, postgres_url: str, tmp_path: Path
) -> None:
    async with running_ingest(
        brokers, postgres_url=postgres_url, log_dir=tmp_path, INGEST_CLIENT_RATE="2/minute"
    ) as ingest:
        await ingest.start_petition("direct")
        claims = [{"x-forwarded-for": f"1.1.1.{claim}", "forwarded": f"for=1.1.1.{claim}"} for claim in range(3)]
        signed = [await ingest.sign("direct", claim) for claim in claims]
        assert [answer.status_code for answer in signed] == [202, 202, 429]
        asked = [await ingest.http.get(signed[0].headers["location"], headers=claim) for claim in claims]
        assert [answer.status_code for answer in asked] == [200, 200, 429]


async def test_beyond_its_bound_ingest_refuses_at_once_and_recovers(
    brokers: KafkaBroker, postgres_url: str, tmp_path: Path
) -> None:
    async with running_ingest(brokers, postgres_url=postgres_url, log_dir=tmp_path, INGEST_MAX_IN_FLIGHT="1") as ingest:
        await ingest.start_petition("overloaded")
        brokers.pause()
        try:
            waiting = asyncio.create_task(ingest.sign("overloaded"))
            async with asyncio.timeout(30):
                while await ingest.metric("groundswell_ingest_in_flight_requests") < 1:
                    await asyncio.sleep(0.02)
            refused = await ingest.sign("overloaded")
            assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (503, "overloaded", "5")
            assert code(await ingest.http.get("/v1/petitions/overloaded")) == "overloaded"
            assert (await ingest.http.get("/livez")).status_code == 200
        finally:
            brokers.resume()
        assert (await waiting).status_code == 202
        assert (await ingest.sign("overloaded")).status_code == 202


async def test_bodies_that_are_slow_to_come_take_nobodys_place(
    brokers: KafkaBroker, postgres_url: str, tmp_path: Path
) -> None:
    async with running_ingest(brokers, postgres_url=postgres_url, log_dir=tmp_path, INGEST_MAX_IN_FLIGHT="2") as ingest:
        await ingest.start_petition("slow-bodies")
        slow = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", ingest.process.port)
            writer.write(
                b"POST /v1/petitions/slow-bodies/signatures HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            await writer.drain()
            slow.append((reader, writer))  # a reader that is forgotten cuts its connection
        assert [(await ingest.sign("slow-bodies")).status_code for _ in range(5)] == [202] * 5
        for _, writer in slow:
            writer.close()
        ends = ("disconnected_total", 'refused_total{reason="body_too_slow"}')  # the latter on a very busy machine
        async with asyncio.timeout(30):
            while sum([await ingest.metric(f"groundswell_ingest_{end}") for end in ends]) < 5:
                await asyncio.sleep(0.05)
