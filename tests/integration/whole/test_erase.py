"""`groundswell erase`, as an operator calls it, on the whole system."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy import erase
from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.ports import free_port
from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from shared.contract.identity import signer_key
from shared.kafka.apply_topics import apply_topics
from tests.support.running_ingest import ADMIN, PEPPER, running_ingest
from tests.support.system import System

WORDS = ("--actor", "Kim, helpdesk", "--reason", "Request 4711")


async def groundswell(*arguments: str, place: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run the command in `place` and return its exit code and what it printed."""
    ours = {name: value for name, value in os.environ.items() if not name.endswith(("INGEST_URL", "ADMIN_TOKEN"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", *arguments),
        cwd=place,
        env={**ours, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), " ".join(err.decode().split())


async def test_one_signer_is_erased_the_count_stays_and_the_clients_request_sent_again_counts_nothing(
    system: System, tmp_path: Path
) -> None:
    petition_id = "one-erased"
    await system.start_petition(petition_id)
    await system.surge(petition_id, range(5))
    signing = {"json": {"email": "erased@mail.example", "name": "Ann", "country": "NL"}}
    address = f"{system.ingest}/v1/petitions/{petition_id}/signatures"
    first = await system.http.post(address, **signing, headers={"idempotency-key": "only"})
    signature = first.json()["signature_id"]
    await system.counts_to(petition_id, 6)
    told = system.stack.environment
    environment = {name: told[name] for name in ("PUBLIC_INGEST_URL", "ADMIN_TOKEN")}

    code, out, err = await groundswell("erase", signature, *WORDS, "--json", place=tmp_path, environment=environment)
    assert code == 0, err
    said = json.loads(out)
    assert (said["ok"], said["signature_id"], said["petition_id"], said["status"]) == (
        True,
        signature,
        petition_id,
        "verified",
    )
    status = (await system.http.get(f"{system.ingest}/v1/signatures/{signature}", headers=system.admin)).json()
    assert said["erased_at"] == status["erased_at"]
    (noted,) = await system.database.fetch("SELECT * FROM erasures WHERE petition_id = $1", petition_id)
    assert (str(noted["signature_id"]), noted["actor"], noted["reason"]) == (signature, "Kim, helpdesk", "Request 4711")

    again = await system.http.post(address, **signing, headers={"idempotency-key": "only"})
    assert again.json() == first.json()
    await system.surge(petition_id, range(5, 6))  # what is behind it is counted
    await system.is_proved(petition_id, 7)

    code, out, err = await groundswell("erase", signature, *WORDS, place=tmp_path, environment=environment)
    assert (code, out) == (
        0,
        f"Erased at {said['erased_at']}: signature {signature} of {petition_id}. It stays verified, and the count is as"
        " before.\n",
    )
    assert len(await system.database.fetch("SELECT * FROM erasures WHERE petition_id = $1", petition_id)) == 1


async def test_what_was_withdrawn_and_erased_is_out_of_the_count_and_may_be_signed_again(
    system: System, tmp_path: Path
) -> None:
    petition_id = "withdrawn-erased"
    await system.start_petition(petition_id)
    signature, *_ = await system.surge(petition_id, range(3))
    await system.counts_to(petition_id, 3)
    answer = await system.http.post(f"{system.ingest}/v1/signatures/{signature}/withdraw", headers=system.admin)
    assert answer.status_code == 202
    await system.counts_to(petition_id, 2)
    # The address of the running stack, as stack.json has it.
    system.stack.state.write(_state_dir(tmp_path))
    code, out, err = await groundswell("erase", signature, *WORDS, "--json", place=tmp_path, environment={})
    assert code == 0, err
    assert json.loads(out)["status"] == "withdrawn"
    await system.is_proved(petition_id, 2)
    await system.surge(petition_id, range(1), name="Once More")
    await system.is_proved(petition_id, 3)


def _state_dir(place: Path) -> Path:
    found = place / ".groundswell"
    found.mkdir()
    return found


async def test_what_is_refused_or_asked_for_wrongly_is_told_by_the_exit_code(system: System, tmp_path: Path) -> None:
    petition_id = "refused-erasures"
    await system.start_petition(petition_id)
    (signature,) = await system.surge(petition_id, range(1))
    await system.counts_to(petition_id, 1)
    told = system.stack.environment
    right = {"INGEST_URL": told["PUBLIC_INGEST_URL"], "ADMIN_TOKEN": told["ADMIN_TOKEN"]}
    partner = {**right, "ADMIN_TOKEN": told["API_KEYS"].split(",")[0]}
    nowhere = {**right, "INGEST_URL": f"http://127.0.0.1:{free_port()}"}
    unknown = "019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d"
    for expected, words, arguments, environment in (
        (1, "Refused with 404: No signature with this id", (unknown, *WORDS), right),
        (1, "Refused with 403: This call is for the administrator", (signature, *WORDS), partner),
        (1, "Refused with 401", (signature, *WORDS), {**right, "ADMIN_TOKEN": "wrong"}),
        (1, "does not answer (ConnectError)", (signature, *WORDS), nowhere),
        (2, "--reason: This must be one line, without line breaks", (signature, *WORDS[:3], "two\nlines"), right),
        (2, "--actor: This is empty, or holds only", (signature, "--actor", " ", *WORDS[2:]), right),
        (2, "Missing option '--reason'", (signature, *WORDS[:2]), right),
        (2, "is not a valid UUID", ("not-an-id", *WORDS), right),
        (2, "set INGEST_URL (or PUBLIC_INGEST_URL) and ADMIN_TOKEN (or ADMIN_TOKENS)", (signature, *WORDS), {}),
        (2, "the address of ingest must be like", (signature, *WORDS), {**right, "INGEST_URL": "ingest:8001"}),
    ):
        code, out, err = await groundswell("erase", *arguments, place=tmp_path, environment=environment)
        assert (code, out) == (expected, ""), err
        assert words in err.replace(" │ │ ", " "), err
        assert told["ADMIN_TOKEN"] not in err
    code, out, _ = await groundswell("erase", unknown, *WORDS, "--json", place=tmp_path, environment=right)
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert await system.database.fetch("SELECT * FROM erasures WHERE petition_id = $1", petition_id) == []


async def test_what_is_not_carried_out_in_time_is_told(
    kafka: KafkaBroker,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is an ingest, and no verify."""
    await apply_topics(kafka.bootstrap_servers)
    url = await postgres.create_database("erase_without_verify")
    await migrate(url)
    async with running_ingest(kafka, postgres_url=url, log_dir=tmp_path) as ingest:
        await ingest.start_petition("nobody-decides")
        signature: str = (await ingest.sign("nobody-decides")).json()["signature_id"]

        async def asked() -> int:
            monkeypatch.setenv("INGEST_URL", ingest.process.url)
            monkeypatch.setenv("ADMIN_TOKEN", ADMIN)
            monkeypatch.setattr(erase, "PATIENCE_SECONDS", 0.5)
            work: dict[str, Any] = {"actor": "Kim", "reason": "Request 4711", "as_json": True}
            return await asyncio.to_thread(erase.erase, UUID(signature), **work)

        assert await asked() == 1
        assert "not decided yet" in json.loads(capsys.readouterr().out)["error"]
        signer = signer_key(PEPPER.encode(), "nobody-decides", "robin@mail.example")
        await ingest.decide(signature, state="verified", petition_id="nobody-decides", signer=signer)
        assert await asked() == 1
        assert "was not carried out within" in json.loads(capsys.readouterr().out)["error"]
        assert len(await ingest.published("nobody-decides")) == 2
