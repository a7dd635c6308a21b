"""Everything encrypted and logged in: all four services on Kafka (SASL/SCRAM over TLS), Redis (TLS, ACL user), PostgreSQL
(TLS, SCRAM) and SMTP (STARTTLS, login), with certificates of an authority that only the settings name.

Refused are a wrong password, another authority, and a name that is not in the certificate. The service then keeps running, is
not ready, and says why without the secret.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
from aiokafka.errors import KafkaConnectionError

from deploy.local import PROJECT_ROOT
from deploy.local.parts.ports import LOOPBACK
from deploy.local.parts.service import SERVICES, ServiceName, ServiceProcess
from shared.contract.topics import all_topics
from shared.kafka.apply_topics import apply_topics
from shared.kafka.security import client_options, why_unreachable
from shared.runtime.settings import KafkaSettings
from tests.integration.whole.encrypted_parts import (
    HOST,
    USER,
    Authority,
    SecuredKafka,
    SecuredPostgres,
    SecuredRedis,
    launched,
    postgres_with_tls,
    redis_with_tls,
    serving,
    told,
)
from tests.support.scripted_smtp import ScriptedSmtp
from tests.support.waiting import eventually

SMTP_LOGIN = ("petitions@relay", "smtp-password:/?#")
ADMIN, PARTNER = "admin-token-of-this-test", "partner-key-of-this-test"

pytestmark = [
    pytest.mark.usefixtures("needs_apache"),
    pytest.mark.skipif(redis_with_tls() is None, reason="needs a Redis with TLS (Debian: redis-tools)"),
    pytest.mark.skipif(postgres_with_tls() is None, reason="needs a PostgreSQL with TLS (Debian: postgresql)"),
]


@dataclass
class Secured:
    """The parts, and the services' settings for them."""

    authority: Authority
    stranger: Authority
    kafka: SecuredKafka
    redis: SecuredRedis
    postgres: SecuredPostgres
    smtp: ScriptedSmtp
    environment: dict[str, str]
    logs: Path

    @property
    def secrets(self) -> list[str]:
        """Secrets that may appear nowhere."""
        passwords = [self.kafka.password, self.redis.password, self.postgres.password, SMTP_LOGIN[1], "smtp-password"]
        return [*passwords, ADMIN, PARTNER, self.environment["SIGNER_PEPPER"], "wrong-password"]

    @property
    def ports(self) -> set[int]:
        """The encrypted listeners."""
        return {self.kafka.sasl_port, self.redis.port, self.postgres.port, self.smtp.port}

    def smtp_url(self, *, host: str = HOST, password: str = "smtp-password%3A%2F%3F%23") -> str:
        return f"smtp+starttls://petitions%40relay:{password}@{host}:{self.smtp.port}"

    def service(self, name: ServiceName, log: str = "", **changes: str) -> ServiceProcess:
        """A service with these settings, or with some replaced."""
        logs = self.logs / log if log else self.logs
        return ServiceProcess(name, environment={**self.environment, **changes}, log_dir=logs)

    async def command(self, *words: str, **changes: str) -> tuple[int, dict[str, Any], str]:
        """`groundswell … --json`: exit code, what it printed, and what it complained."""
        environment = {**os.environ, **self.environment, **changes}
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", *words, "--json"),
            cwd="/",  # where no stack runs from which the command would take what is missing
            env={name: value for name, value in environment.items() if value} | {"PYTHONPATH": str(PROJECT_ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await program.communicate()
        assert program.returncode is not None
        return program.returncode, json.loads(out) if out else {}, err.decode()


@pytest.fixture(scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory, *, apache_is_here: bool) -> AsyncIterator[Secured]:
    """The parts, running."""
    assert apache_is_here
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "authority")
    identity = authority.identity(HOST)
    logs = folder / "logs"
    kafka = SecuredKafka(authority=authority, identity=identity, data_dir=folder / "kafka", log_dir=logs)
    redis = SecuredRedis(identity=identity, data_dir=folder / "redis", log_dir=logs)
    postgres = SecuredPostgres(identity=identity, data_dir=folder / "postgres", log_dir=logs)
    smtp = ScriptedSmtp(tls=serving(identity), login=SMTP_LOGIN)
    (folder / "kafka-password").write_text(f"{kafka.password}\n")
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{kafka.sasl_port}",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD_FILE": str(folder / "kafka-password"),
        "KAFKA_SSL_CA_FILE": str(authority.file),
        "SMTP_SSL_CA_FILE": str(authority.file),
        **redis.environment,
        **postgres.environment,
        "SIGNER_PEPPER": "pepper of the encrypted test",
        "ADMIN_TOKEN": ADMIN,
        "API_KEYS": PARTNER,
        "INGEST_CLIENT_RATE": "off",
        "NOTIFY_COALESCE_SECONDS": "0.5",
        "NOTIFY_LEASE_SECONDS": "10",
        "NOTIFY_SMTP_TIMEOUT_SECONDS": "5",
        "PUBLIC_PAGES_URL": "https://petitions.example",
    }
    try:
        async with AsyncExitStack() as running:
            for part in (kafka, redis, postgres, smtp):
                await running.enter_async_context(part)
            found = Secured(authority, Authority(folder / "other"), kafka, redis, postgres, smtp, environment, logs)
            found.environment["SMTP_URL"] = found.smtp_url()
            yield found
    finally:
        postgres.remove_data()


async def prepare(secured: Secured) -> None:
    """Tables and topics, made as an operator makes them."""
    code, done, complaint = await secured.command("migrate")
    assert (code, done.get("ok")) == (0, True), complaint
    code, done, complaint = await secured.command("topics", "apply", "--partitions", "2")
    assert code == 0, complaint
    assert set(done["topics"]) == {topic.name for topic in all_topics()}


async def sign(http: httpx.AsyncClient, ingest: str, petition_id: str, signers: int) -> None:
    """Open a petition with a milestone at 100 and send that many signatures."""
    petition = {
        "organisation": {"slug": "harbour-friends", "name": "Friends of the Harbour"},
        "title": "Keep the ferry",
        "text": "Keep the ferry.",
        "targets": [{"target_id": "council", "name": "The Council", "kind": "body", "email": "office@council.test"}],
        "milestones": [100],
    }
    url = f"{ingest}/v1/petitions/{petition_id}"
    answer = await http.put(url, json=petition, headers={"authorization": f"Bearer {ADMIN}"})
    assert answer.status_code == 201, answer.text
    lines = [
        json.dumps({"email": f"s{n}@mail.example", "name": "Ann Example", "country": "NL", "idempotency_key": f"k{n}"})
        for n in range(signers)
    ]

    async def taken() -> bool:
        headers = {"x-api-key": PARTNER, "content-type": "application/x-ndjson"}
        answer = await http.post(f"{url}/signatures/batch", content="\n".join(lines), headers=headers)
        return answer.status_code == 207 and all(one["status"] == 202 for one in answer.json()["results"])

    await eventually(taken, "all signatures are accepted", 20)


async def test_signatures_are_counted_and_mailed_when_every_connection_is_encrypted_and_logged_in(
    secured: Secured,
) -> None:
    await prepare(secured)
    services = {name: secured.service(name) for name in SERVICES}
    wrong = secured.service("notify", log="wrong", SMTP_URL=secured.smtp_url(password="wrong-password"))
    async with launched(*(services[name] for name in SERVICES if name != "notify"), wrong) as http:
        for name in ("ingest", "verify", "tally"):
            await services[name].wait_ready()
        await wrong.wait_ready()  # a login is tried with the first mail, not at every probe
        await sign(http, services["ingest"].url, "ferry", 120)

        async def counted() -> bool:
            answer = await http.get(f"{services['tally'].url}/v1/petitions/ferry/tally")
            return answer.status_code == 200 and answer.json()["count"] == 120

        await eventually(counted, "120 signatures are counted")

        async def refused() -> bool:
            status, checks = await told(http, wrong)
            return (status, checks.get("smtp")) == (503, "the SMTP server refuses the login: 535")

        await eventually(refused, "notify says that its login is refused")
        assert not secured.smtp.taken
        await wrong.stop()

        async with launched(services["notify"]):
            await services["notify"].wait_ready()

            async def mailed() -> bool:
                return [mail.milestones for mail in secured.smtp.taken] == ["100"]

            await eventually(mailed, "the mail has come")
            await asyncio.gather(*(speaks_to_nobody_else(secured, service) for service in services.values()))
            await nothing_is_told(secured, http, [*services.values(), wrong])
            document = (await http.get(f"{services['verify'].url}/docs/asyncapi.json")).json()
            assert document["components"]["securitySchemes"] == {"scram512": {"type": "scramSha512"}}
            assert {server["protocol"] for server in document["servers"].values()} == {"kafka-secure"}
        await encrypted_says_postgres(secured)
        code, audited, complaint = await secured.command("audit")
        assert (code, audited["drift"]) == (0, 0), complaint


async def speaks_to_nobody_else(secured: Secured, service: ServiceProcess) -> None:
    assert service.pid is not None
    connections = psutil.Process(service.pid).net_connections("tcp")
    others = {
        one.raddr.port
        for one in connections
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port != service.port
    }
    assert others, f"{service.name} has no connection"
    assert others <= secured.ports, f"{service.name} speaks to {others - secured.ports}"


async def nothing_is_told(secured: Secured, http: httpx.AsyncClient, services: list[ServiceProcess]) -> None:
    """No secret in what a service logs and shows."""
    for service in services:
        shown = service.log_file.read_text()
        for path in ("/readyz", "/metrics", "/docs/asyncapi.json"):
            shown += (await http.get(f"{service.url}{path}")).text if service.running else ""
        found = [secret for secret in secured.secrets if secret in shown]
        assert not found, f"{service.name} tells {found}"


async def encrypted_says_postgres(secured: Secured) -> None:
    connection = await asyncpg.connect(secured.postgres.url_with())
    rows = await connection.fetch(
        "SELECT application_name, bool_and(ssl) AS encrypted, min(version) AS version FROM pg_stat_ssl"
        " JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'groundswell-%' GROUP BY 1"
    )
    await connection.close()
    assert {row["application_name"] for row in rows} >= {
        "groundswell-ingest",
        "groundswell-verify",
        "groundswell-tally",
    }
    assert all(row["encrypted"] and row["version"] >= "TLSv1.2" for row in rows)


UNTRUSTED = "the certificate is not accepted: unable to get local issuer certificate"
MISNAMED = f"the certificate is not accepted: IP address mismatch, certificate is not valid for '{LOOPBACK}'"


@pytest.mark.parametrize(
    ("what", "reason", "smtp"),
    [
        ("password", "the login is refused", "ok"),
        ("authority", UNTRUSTED, f"the SMTP server cannot be reached: {UNTRUSTED}"),
        ("name", MISNAMED, f"the SMTP server cannot be reached: {MISNAMED}"),
    ],
)
async def test_a_service_that_is_refused_or_refuses_runs_on_is_not_ready_and_says_why(
    secured: Secured, what: str, reason: str, smtp: str
) -> None:
    other = secured.stranger.file
    changes = {
        "password": {
            "KAFKA_SASL_PASSWORD": "wrong-password",
            "REDIS_URL": secured.redis.url_with(password="wrong-password"),
            "POSTGRES_URL": secured.postgres.url_with(password="wrong-password"),
        },
        "authority": {
            "KAFKA_SSL_CA_FILE": str(other),
            "REDIS_URL": secured.redis.url_with(authority=other),
            "POSTGRES_URL": secured.postgres.url_with(authority=other),
            "SMTP_SSL_CA_FILE": str(other),
        },
        "name": {
            "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{secured.kafka.sasl_port}",
            "REDIS_URL": secured.redis.url_with(host=LOOPBACK),
            "POSTGRES_URL": secured.postgres.url_with(host=LOOPBACK),
            "SMTP_URL": secured.smtp_url(host=LOOPBACK),
        },
    }[what]
    tally = secured.service("tally", log=f"wrong-{what}", **changes)
    notify = secured.service("notify", log=f"wrong-{what}", **changes)
    kafka, postgres = f"Kafka is away: {reason}", f"PostgreSQL is away: {reason}"
    unread = "petitions.changed is not being read yet"
    expected = {
        tally: {
            "catalogue": unread,
            "kafka": kafka,
            "redis": f"away: {reason}",
            "postgres": postgres,
            "consumer": "waiting for kafka, redis, postgres and catalogue: no partitions assigned yet",
        },
        notify: {
            "kafka": kafka,
            "catalogue": unread,
            "postgres": postgres,
            "smtp": smtp,
            "consumer": "waiting for kafka, postgres and catalogue: no partitions assigned yet",
        },
    }
    async with launched(tally, notify) as http:

        async def as_expected() -> bool:
            return all([await told(http, service) == (503, checks) for service, checks in expected.items()])

        await eventually(as_expected, "both say why")
        await asyncio.sleep(2)  # tried again meanwhile, several times
        for service, checks in expected.items():
            assert await told(http, service) == (503, checks)
            assert service.running
            assert (await http.get(f"{service.url}/livez")).status_code == 200
        await nothing_is_told(secured, http, [tally, notify])
    assert (tally.exit_code, notify.exit_code) == (0, 0)


async def test_commands_that_are_refused_say_why_in_a_line(secured: Secured) -> None:
    code, said, complaint = await secured.command(
        "migrate", POSTGRES_URL=secured.postgres.url_with(password="wrong-password")
    )
    assert (code, said, complaint) == (1, {"ok": False, "error": "PostgreSQL is away: the login is refused"}, "")
    code, said, _ = await secured.command("topics", "apply", KAFKA_SSL_CA_FILE=str(secured.stranger.file))
    assert (code, said) == (1, {"ok": False, "error": f"Kafka is away: {UNTRUSTED}"})
    code, said, complaint = await secured.command("audit", POSTGRES_URL=secured.postgres.url_with(host=LOOPBACK))
    assert (code, said) == (2, {})
    assert f"PostgreSQL is away: {MISNAMED}" in " ".join(complaint.replace("│", " ").split())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_each_way_to_log_in_to_kafka_works(secured: Secured, mechanism: str) -> None:
    def settings(password: str) -> KafkaSettings:
        values: dict[str, Any] = {
            "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{secured.kafka.sasl_port}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": password,
            "KAFKA_SSL_CA": secured.authority.file.read_text(),
        }
        return KafkaSettings(**values)

    right = settings(secured.kafka.password)
    done = await apply_topics(right.kafka_bootstrap_servers, partitions=2, security=client_options(right))
    assert set(done) == {topic.name for topic in all_topics()}
    assert await why_unreachable(right) is None
    assert await why_unreachable(settings("wrong-password")) == "the login is refused"


async def test_kafka_that_asks_for_a_certificate_of_ours_gets_it(secured: Secured) -> None:
    ours = secured.authority.identity("groundswell.example")
    address = f"{HOST}:{secured.kafka.certificate_port}"
    told: dict[str, Any] = {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CA": secured.authority.file.read_text(),
    }
    ours_told: dict[str, Any] = {
        "KAFKA_SSL_CERTIFICATE": ours.certificate.read_text(),
        "KAFKA_SSL_KEY": ours.key.read_text(),
    }
    security = client_options(KafkaSettings(**told, **ours_told))
    assert set(await apply_topics(address, partitions=2, security=security)) == {topic.name for topic in all_topics()}

    nobody = KafkaSettings(**told)
    with pytest.raises(KafkaConnectionError):
        await apply_topics(address, security=client_options(nobody))
    reason = await why_unreachable(nobody) or ""
    assert reason.startswith("the server wants a certificate of ours, or does not accept it")


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT"])
async def test_a_client_that_speaks_another_protocol_than_the_listener_is_told_so(
    secured: Secured, protocol: str
) -> None:
    values: dict[str, Any] = {
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{secured.kafka.sasl_port}",
        "KAFKA_SECURITY_PROTOCOL": protocol,
    }
    if protocol == "SSL":
        values["KAFKA_SSL_CA"] = secured.authority.file.read_text()
    if protocol == "SASL_PLAINTEXT":
        values["KAFKA_BOOTSTRAP_SERVERS"] = secured.kafka.bootstrap_servers  # without logins
        values |= {"KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": USER, "KAFKA_SASL_PASSWORD": "a password"}
    reason = await why_unreachable(KafkaSettings(**values)) or ""
    assert reason.endswith("; is KAFKA_SECURITY_PROTOCOL what this listener speaks?")
