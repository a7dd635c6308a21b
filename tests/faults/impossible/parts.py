"""A running system as the acts access it: its parts directly, its services by HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import httpx
from redis.asyncio import Redis

from shared import redis as shared_redis

if TYPE_CHECKING:
    from deploy.local.stack import Stack
    from tests.faults.world import World


class SentMail(NamedTuple):
    """A mail that the SMTP server received."""

    petition_id: str
    recipient: str
    milestones: tuple[int, ...]


Restart = Callable[[str], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A running system.

    Attributes:
        bootstrap_servers, redis_url, postgres_url: the parts themselves, not a proxy.
        pepper: of the signer keys.
        ingest_url, tally_url: of one instance each.
        admin, partner: headers that an administrator and a partner send.
        logs: where the services write their logs, a file each.
        mails: the mails that the SMTP server has received.
        restart: restarts all instances of a service, and returns when they are ready.
    """

    bootstrap_servers: str
    redis_url: str
    postgres_url: str
    pepper: bytes
    ingest_url: str
    tally_url: str
    admin: Mapping[str, str]
    partner: Mapping[str, str]
    logs: Path
    mails: Callable[[], Awaitable[list[SentMail]]]
    restart: Restart
    http: httpx.AsyncClient

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A new connection to PostgreSQL."""
        connection = await asyncpg.connect(self.postgres_url, timeout=5, command_timeout=60)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """A client of Redis."""
        client = shared_redis.connect(self.redis_url)
        try:
            yield client
        finally:
            await client.aclose()

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """Every line that a service has logged so far."""
        for file in sorted(self.logs.glob("*.log")):
            with file.open(encoding="utf-8", errors="replace") as log:
                for text in log:
                    try:
                        line = json.loads(text)
                    except ValueError:
                        continue
                    if isinstance(line, dict):
                        yield line


def parts_of_world(world: World) -> Parts:
    """Those of the harness's world."""

    async def mails() -> list[SentMail]:
        return [SentMail(mail.petition_id, mail.recipient, mail.milestones) for mail in world.smtp.mails]

    async def restart(service: str) -> None:
        for process in [process for process in world.service_processes if process.service == service]:
            await process.restart()
        await world.is_ready()

    return Parts(
        bootstrap_servers=world.bootstrap_servers,
        redis_url=world.redis_url,
        postgres_url=world.postgres_url,
        pepper=world.environment["SIGNER_PEPPER"].encode(),
        ingest_url=world.ingest_urls[0],
        tally_url=world.tally_url,
        admin=world.admin,
        partner={"x-api-key": world.api_key},
        logs=world.logs,
        mails=mails,
        restart=restart,
        http=world.http,
    )


def parts_of_stack(stack: Stack, http: httpx.AsyncClient) -> Parts:
    """Those of a local stack with a mail catcher."""

    async def mails() -> list[SentMail]:
        assert stack.mailbox is not None
        found = []
        for mail in await stack.mailbox.messages():
            milestones = tuple(int(one) for one in mail.headers.get("X-Groundswell-Milestones", "0").split(","))
            petition_id = mail.headers.get("X-Groundswell-Petition", "")
            found += [SentMail(petition_id, recipient, milestones) for recipient in mail.rcpt_to]
        return found

    async def restart(service: str) -> None:
        processes = [process for process in stack.service_processes if process.service == service]
        for process in processes:
            await process.restart()
        for process in processes:
            await process.wait_ready()

    environment = stack.environment
    return Parts(
        bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"],
        redis_url=environment["REDIS_URL"],
        postgres_url=environment["POSTGRES_URL"],
        pepper=environment["SIGNER_PEPPER"].encode(),
        ingest_url=stack.services["ingest"][0].url,
        tally_url=stack.services["tally"][0].url,
        admin={"authorization": f"Bearer {environment['ADMIN_TOKEN']}"},
        partner={"x-api-key": environment["API_KEYS"].split(",")[0]},
        logs=stack.service_processes[0].log_file.parent,
        mails=mails,
        restart=restart,
        http=http,
    )
