"""Nothing personal and no secret is anywhere but where it belongs: it is planted, and then looked for everywhere.

Personal data belongs into the values of ``signatures.submitted`` and of its dead letters, which are its own records
(docs/adr/0004). Secrets belong nowhere at all.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.parts.ports import free_port
from deploy.local.parts.service import SERVICES, ServiceName, ServiceProcess
from shared import redis as shared_redis
from shared.contract.events import SignCommand
from shared.contract.topics import SIGNATURES_SUBMITTED, all_topics
from shared.kafka.records.headers import event_headers
from tests.support.system import System
from tests.support.waiting import eventually

PETITION: Final = "planted-secrets"
PERSON: Final = {
    "email": "plantedmail7q@plantedhost7q.example",
    "name": "Plantedname Seven",
    "postcode": "PLANTEDPC7",
    "comment": "Plantedcomment, because I work nights.",
    "country": "NL",
}
PERSONAL: Final = ("plantedmail7q", "plantedhost7q", "plantedname", "plantedpc7", "plantedcomment")
OTHER: Final = (
    "plantedidem",
    "plantedtoken",
    "plantedkey",
    "plantedquery",
    "plantedpath",
    "plantedagent",
    "plantedpassword",
)
"""Other input of clients and operators: idempotency keys, wrong credentials, requested addresses, passwords."""
WORDS: Final = ("plantedactor", "plantedreason")
"""An operator's actor and reason of an erasure, for the table of erasures and the commands' topic only."""
HOME: Final = {SIGNATURES_SUBMITTED.name, SIGNATURES_SUBMITTED.dlq}


def found(text: str | bytes, secrets: Sequence[str]) -> list[str]:
    """Which of the secrets are in a text, in any case."""
    lower = (text if isinstance(text, str) else text.decode("utf-8", "replace")).lower()
    return [secret for secret in secrets if secret.lower() in lower]


async def sends_everything(system: System) -> list[httpx.Response]:
    """Signatures, retries, errors and poison, all with planted data. Returns the answers with a problem."""
    address = f"{system.ingest}/v1/petitions/{PETITION}/signatures"
    headers = {"idempotency-key": "plantedidem-1", "user-agent": "plantedagent plantedmail7q@plantedhost7q.example"}
    for _ in range(2):
        accepted = await system.http.post(address, json=PERSON, headers=headers)
        assert accepted.status_code == 202
    form = await system.http.post(address, data={**PERSON, "country": "BE"}, headers={"accept": "text/html"})
    assert form.status_code == 303
    line = {**PERSON, "email": f"2.{PERSON['email']}", "idempotency_key": "plantedidem-2"}
    batch = await system.http.post(
        f"{address}/batch",
        content=f"{json.dumps(line)}\n{json.dumps({**line, 'country': 'plantedname'})}\n{{plantedmail7q",
        headers={**system.partner, "content-type": "application/x-ndjson"},
    )
    assert [result["status"] for result in batch.json()["results"]] == [202, 422, 400]
    unwell = [batch]
    for body in ({**PERSON, "email": "plantedmail7q"}, {**PERSON, "name": ["Plantedname"]}, {"plantedname": 1}):
        unwell.append(await system.http.post(address, json=body, headers=headers))
        unwell.append(await system.http.post(address, data=body, headers={"accept": "text/html"}))
    wrong = {"authorization": "Bearer plantedtoken-000000", "x-forwarded-for": "plantedmail7q"}
    unwell += [
        await system.http.post(
            address, content=b'{"email": plantedmail7q', headers={"content-type": "application/json"}
        ),
        await system.http.put(f"{system.ingest}/v1/petitions/{PETITION}", json=PERSON, headers=wrong),
        await system.http.post(f"{address}/batch", content="x", headers={"x-api-key": "plantedkey-00000000"}),
        await system.http.get(f"{system.ingest}/v1/signatures/plantedpath?email=plantedquery@plantedhost7q.example"),
        await system.http.get(f"{system.ingest}/plantedpath?token=plantedtoken"),
        await system.http.get(f"{system.tally}/p/plantedpath?q=plantedquery"),
        await system.http.get(f"{system.tally}/v1/petitions/plantedpath/tally?detail=plantedquery"),
    ]
    assert {answer.status_code for answer in unwell} >= {400, 401, 404, 422}
    await poison(system)
    return unwell


async def poison(system: System) -> None:
    """Records with personal data that verify cannot read, each for another reason."""
    golden = {
        **PERSON,
        "signature_id": "00000000-0000-0000-0000-000000000001",
        "petition_id": PETITION,
        "submitted_at": "2026-11-22T12:00:00Z",
    }
    headers = event_headers(
        SignCommand, event_id="00000000-0000-0000-0000-000000000001", source="/elsewhere", subject=PETITION
    )
    values = (
        b"Plantedname <plantedmail7q@plantedhost7q.example>",
        json.dumps({**golden, "email": "plantedmail7q at plantedhost7q"}).encode(),
        json.dumps({**golden, "signature_id": "plantedname"}).encode(),
        json.dumps({**golden, "name": "Plantedname" * 100}).encode(),
        json.dumps(golden).encode(),
    )
    async with AIOKafkaProducer(bootstrap_servers=system.stack.environment["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
        for value in values:
            await producer.send_and_wait(SIGNATURES_SUBMITTED.name, value, key=b"0" * 32, headers=headers)


async def erases_one(system: System, signature_id: str) -> None:
    """An operator erases a signature, once with words that are refused, and waits until it is done."""
    address = f"{system.ingest}/v1/signatures/{signature_id}"
    actor, reason = WORDS
    for words, status in (
        ({"actor": actor, "reason": f"{reason}\nand more"}, 422),
        ({"actor": actor, "reason": reason}, 202),
    ):
        answer = await system.http.post(f"{address}/erase", json=words, headers=system.admin)
        assert answer.status_code == status, answer.text
        assert found(answer.text + str(answer.headers), WORDS) == []

    async def erased() -> bool:
        return (await system.http.get(address, headers=system.admin)).json()["erased_at"] is not None

    await eventually(erased, "the signature is erased")


async def everything_stored(system: System) -> dict[str, str]:
    """All that PostgreSQL and Redis hold, by where it is."""
    stored = {}
    for row in await system.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        table = row["tablename"]
        rows = await system.database.fetch(f'SELECT t::text AS line FROM "{table}" t')
        stored[f"table {table}"] = "\n".join(row["line"] for row in rows)
    redis = shared_redis.connect(system.stack.environment["REDIS_URL"])
    try:
        async for key in redis.scan_iter(count=1000):
            kind = await redis.type(key)
            value: Any
            match kind:
                case "hash":
                    value = await redis.hgetall(key)
                case "string":
                    value = await redis.get(key)
                case _:
                    value = await redis.dump(key)
            stored[f"redis {key}"] = f"{key} {value}"
    finally:
        await redis.aclose()
    return stored


async def everything_shown(system: System) -> dict[str, str]:
    """All that the services show to those who operate them, and all logs."""
    shown = {}
    for process in system.stack.service_processes:
        for path in ("/metrics", "/readyz", "/livez", "/docs/asyncapi.json", "/openapi.json"):
            shown[f"{process.name} {path}"] = (await system.http.get(process.url + path)).text
    for part in system.stack.processes:
        shown[f"log of {part.name}"] = part.log_file.read_text(errors="replace") if part.log_file.exists() else ""
    assert system.stack.mailbox is not None
    shown["mails"] = (await system.http.get(f"{system.stack.mailbox.page_url}/messages")).text
    return shown


async def test_what_is_personal_or_secret_is_nowhere_but_where_it_belongs(system: System) -> None:
    await system.start_petition(PETITION, milestones=[1])
    before = len(await system.records(SIGNATURES_SUBMITTED.dlq))
    unwell = await sends_everything(system)
    await system.counts_to(PETITION, 2)
    erased = await system.database.fetchrow(
        "SELECT signature_id, signer_key FROM signatures WHERE petition_id = $1 AND signer_key NOT IN"
        " (SELECT signer_key FROM signatures WHERE state = 'duplicate')",  # who signed once only
        PETITION,
    )
    assert erased is not None
    await erases_one(system, str(erased["signature_id"]))

    async def all_refused() -> bool:
        return len(await system.records(SIGNATURES_SUBMITTED.dlq)) == before + 5

    await eventually(all_refused, "the poison is in the dead-letter topic")

    environment = system.stack.environment
    operators = [environment[name] for name in ("SIGNER_PEPPER", "ADMIN_TOKEN")]
    operators += [key.rpartition(":")[2] for key in environment["API_KEYS"].split(",")]  # without their names
    secrets = [*PERSONAL, *OTHER, *WORDS, *operators]

    leaks = {
        f"answer {number}": found(answer.text + str(answer.headers), secrets) for number, answer in enumerate(unwell)
    }
    leaks |= {where: found(text, secrets) for where, text in (await everything_shown(system)).items()}
    for where, text in (await everything_stored(system)).items():
        words = WORDS if where == "table erasures" else ()
        leaks[where] = [one for one in found(text, [*secrets, str(erased["signer_key"])]) if one not in words]
    at_home = 0
    for topic in all_topics():
        for record in await system.records(topic.name):
            where = f"{topic.name} {record.partition} {record.offset}"
            leaks[f"{where} key"] = found(record.key or b"", secrets)
            leaks[f"{where} headers"] = found(repr(record.headers), secrets)
            belongs = topic.name in HOME
            at_home += bool(found(record.value or b"", PERSONAL)) and belongs
            leaks[f"{where} value"] = found(record.value or b"", [*OTHER, *operators] if belongs else secrets)
    assert {where: what for where, what in leaks.items() if what} == {}
    assert at_home >= 9, "what was planted did arrive"


# ------------------------------------------------------------------------------------------- what goes wrong tells nothing


@asynccontextmanager
async def refusing_postgres() -> AsyncIterator[str]:
    """The address of a PostgreSQL that asks for the password and calls it wrong."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while int.from_bytes(await reader.readexactly(4), "big") == 8:  # may this be encrypted?
                await reader.readexactly(4)
                writer.write(b"N")
            await reader.read(1000)
            writer.write(b"R\x00\x00\x00\x08\x00\x00\x00\x03")  # send the password
            await reader.read(1000)
            fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "x"\0\0'
            writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has seen enough
        finally:
            writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("service", SERVICES)
async def test_passwords_are_shown_by_nothing_that_goes_wrong(
    service: ServiceName, system: System, tmp_path: Path
) -> None:
    """A wrong database password, a Redis and an SMTP server that are not there, or refuse the login."""
    redis = system.stack.environment["REDIS_URL"].removeprefix("redis://")
    async with refusing_postgres() as postgres:
        process = ServiceProcess(
            service,
            environment={
                **system.stack.environment,
                "POSTGRES_URL": f"postgresql://plantedname:plantedpassword@{postgres}/plantedpath?sslmode=disable",
                "REDIS_URL": f"redis://plantedname:plantedpassword@{redis}",
                "SMTP_URL": f"smtp://plantedname:plantedpassword@127.0.0.1:{free_port()}",
                "LOG_LEVEL": "debug",
            },
            log_dir=tmp_path,
        )
        await process.launch()
        try:
            shown = await told_of_trouble(process)
        finally:
            await process.stop()
    shown["log"] = process.log_file.read_text()
    assert shown["log"].count("\n") >= 2
    operators = [system.stack.environment[name] for name in ("SIGNER_PEPPER", "ADMIN_TOKEN", "API_KEYS")]
    secrets = ["plantedpassword", *operators]
    assert {where: what for where, text in shown.items() if (what := found(text, secrets))} == {}


async def told_of_trouble(process: ServiceProcess) -> dict[str, str]:
    """Everything that a service shows when it reports that a part is away."""
    async with httpx.AsyncClient(base_url=process.url, timeout=30) as http:
        async with asyncio.timeout(60):
            while True:
                try:
                    ready = await http.get("/readyz")
                except httpx.TransportError:
                    assert process.running, process.describe_end()
                else:
                    if ready.json()["checks"].get("postgres", "ok") != "ok":
                        break
                await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # for a few more tries
        return {path: (await http.get(path)).text for path in ("/readyz", "/metrics")}


class WithBug(ServiceProcess):
    """A service in which a function fails with what it was given in the exception's text."""

    def __init__(self, service: ServiceName, broken: str, *, environment: Mapping[str, str], log_dir: Path) -> None:
        super().__init__(service, environment=environment, log_dir=log_dir)
        self._broken = broken

    def _command(self) -> Sequence[str | Path]:
        module, _, name = self._broken.rpartition(":")
        owner, _, function = name.partition(".")
        program = (
            f"import sys, {module} as module, services.{self.service}.app as app\n"
            "async def fails(self, *given):\n"
            "    raise RuntimeError(f'cannot go on with {given}')\n"
            f"module.{owner}.{function} = fails\n"
            f"from services.{self.service}.settings import Settings\n"
            "from shared.service import main\n"
            f"sys.exit(main({self.service!r}, Settings, app.build))\n"
        )
        return [sys.executable, "-c", program]


async def test_a_service_that_crashes_over_a_signature_does_not_say_whose_it_was(
    system: System, tmp_path: Path
) -> None:
    await system.start_petition("planted-bug")
    (verify,) = system.stack.services["verify"]
    await verify.stop()  # the broken one shall get all signatures
    broken = WithBug(
        "verify",
        "services.verify.store:VerifyStore.apply",
        environment=system.stack.environment,
        log_dir=tmp_path,
    )
    try:
        await broken.start()
        signed = await system.http.post(f"{system.ingest}/v1/petitions/planted-bug/signatures", json=PERSON)
        assert signed.status_code == 202
        assert await broken.wait(60) == 1
    finally:
        await broken.kill()
        await verify.start()
    log = broken.log_file.read_text()
    assert "cannot go on with" in log
    assert signed.json()["signature_id"] in log, "which one it was is told"
    assert found(log, PERSONAL) == []
    await system.counts_to("planted-bug", 1)


async def test_a_request_that_fails_by_a_bug_does_not_say_whose_it_was(system: System, tmp_path: Path) -> None:
    await system.start_petition("planted-bug")
    broken = WithBug(
        "ingest",
        "services.ingest.signing.intake:Intake.sign",
        environment={**system.stack.environment, "INGEST_CLIENT_RATE": "off"},
        log_dir=tmp_path,
    )
    async with broken:
        answer = await system.http.post(f"{broken.url}/v1/petitions/planted-bug/signatures", json=PERSON)
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:groundswell:problem:internal_error"
    log = broken.log_file.read_text()
    assert "cannot go on with" in log
    assert found(log + answer.text, PERSONAL) == []
