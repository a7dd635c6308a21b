"""A sacrificial petition, and the checks of its recovery."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import httpx
import redis.exceptions

from shared.contract.events import minute_of
from tests.faults.fault import Broken
from tests.faults.impossible.parts import Parts
from tests.faults.notes import SACRIFICE

SIGNERS: Final = 5
"""Signatures that count before anything is spoiled."""
FIRST_MILESTONE: Final = 3
NEXT_MILESTONE: Final = 6
"""A milestone that is reached only after the recovery: its mail must go to the right address."""
NEVER: Final = 1_000
"""A milestone that is never reached."""
MALLORY: Final = "mallory@elsewhere.test"
"""The address in forged records. It must get no mail."""

_LOOK_SECONDS: Final = 0.1
_MINUTE: Final = "%Y-%m-%dT%H:%MZ"
_MADE_SECONDS: Final = 60.0

AWAY: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, redis.exceptions.RedisError, httpx.HTTPError, OSError)
"""Errors while a part is away, because of another fault."""


class NotMade(Broken):
    """The petition or a signature was not accepted, or not counted, before anything was spoiled."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A petition's state by the ledger, at one moment."""

    count: int
    changes: int
    fences: dict[int, int]
    countries: dict[str, int]
    minutes: dict[int, int]


class Victim:
    """A sacrificial petition.

    Attributes:
        petition_id: begins with `SACRIFICE`.
        signatures: id of the signature of each signer, in the order of signing.
        address: where its mails go, and nowhere else.
    """

    def __init__(self, parts: Parts, petition_id: str) -> None:
        if not petition_id.startswith(SACRIFICE):
            raise ValueError(f"a sacrificial petition is called {SACRIFICE}…")
        self.parts, self.petition_id = parts, petition_id
        self.address = f"council@{petition_id}.test"
        self.signatures: dict[int, str] = {}

    @property
    def body(self) -> dict[str, Any]:
        """The body that creates it at ingest."""
        return {
            "organisation": {"slug": "sacrifices", "name": "Friends of the Impossible"},
            "title": f"To be spoiled ({self.petition_id})",
            "text": "The ferry is the shortest way across.",
            "targets": [{"target_id": "council", "name": "The Council", "kind": "body", "email": self.address}],
            "milestones": [FIRST_MILESTONE, NEXT_MILESTONE, NEVER],
        }

    async def make(self) -> None:
        """Create the petition; returns when its signatures are counted and its first milestone is announced.

        Raises:
            NotMade: that took too long.
        """
        url = f"{self.parts.ingest_url}/v1/petitions/{self.petition_id}"
        await self._accepted(lambda: self.parts.http.put(url, json=self.body, headers=dict(self.parts.admin)))
        for signer in range(SIGNERS):
            await self.sign(signer)
        await self._until(self._is_made, "its signatures are counted")

    async def _is_made(self) -> bool:
        async with self.parts.database() as database:
            announced = await database.fetchval(
                "SELECT count(*) FROM milestones WHERE petition_id = $1 AND announced_at IS NOT NULL", self.petition_id
            )
            sent = await database.fetchval(
                "SELECT count(*) FROM deliveries WHERE petition_id = $1 AND state = 'sent'", self.petition_id
            )
        return announced == 1 and sent == 1 and not await what_is_wrong(self)

    async def sign(self, signer: int, *, key: str | None = None) -> str:
        """Send a signature to the API until it answers 202; returns the signature's id.

        Args:
            signer: a number; the same number is the same e-mail address.
            key: the idempotency key; by default the signer's.

        Raises:
            NotMade: it was not accepted in time.
        """
        url = f"{self.parts.ingest_url}/v1/petitions/{self.petition_id}/signatures"
        answer = await self._accepted(
            lambda: self.parts.http.post(
                url,
                json={
                    "email": self.email(signer),
                    "name": "Robin Example",
                    "country": "NL" if signer % 2 else "BE",
                    "consent": True,
                },
                headers={**self.parts.partner, "idempotency-key": key or self.key(signer)},
            )
        )
        signature_id = str(answer.json()["signature_id"])
        self.signatures.setdefault(signer, signature_id)
        return signature_id

    async def withdraw(self, signer: int) -> None:
        """Withdraw a signature by the API.

        Raises:
            NotMade: it was not accepted in time.
        """
        url = f"{self.parts.ingest_url}/v1/signatures/{self.signatures[signer]}/withdraw"
        await self._accepted(lambda: self.parts.http.post(url, headers=dict(self.parts.admin)))

    def email(self, signer: int) -> str:
        """The address of a signer."""
        return f"signer{signer}@{self.petition_id}.example"

    def key(self, signer: int) -> str:
        """The idempotency key of a signer's first request."""
        return f"{self.petition_id}-{signer}"

    async def truth(self) -> Truth:
        """The petition's state by the ledger now. It must be counted, even if it was edited."""
        async with self.parts.database() as database:
            rows = await database.fetch(
                "SELECT lane, position, delta, country, signed_at FROM ledger WHERE petition_id = $1", self.petition_id
            )
        fences: dict[int, int] = {}
        countries: Counter[str] = Counter()
        minutes: Counter[int] = Counter()
        for row in rows:
            fences[row["lane"]] = max(fences.get(row["lane"], 0), row["position"])
            countries[row["country"]] += row["delta"]
            minutes[minute_of(row["signed_at"])] += row["delta"]
        return Truth(
            sum(countries.values()),
            len(rows),
            fences,
            {code: number for code, number in countries.items() if number},
            {minute: number for minute, number in minutes.items() if number},
        )

    async def shown(self) -> int:
        """The public count.

        Raises:
            httpx.HTTPError: it cannot be read.
        """
        answer = await self.parts.http.get(f"{self.parts.tally_url}/v1/petitions/{self.petition_id}/tally")
        return int(answer.raise_for_status().json()["count"])

    async def _accepted(self, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Repeat the request until it succeeds; a part may be away meanwhile."""
        deadline = time.monotonic() + _MADE_SECONDS
        last: object = None
        while time.monotonic() < deadline:
            try:
                answer = await ask()
            except httpx.TransportError as error:
                last = error
            else:
                if answer.is_success:
                    return answer
                last = f"{answer.status_code} {answer.text[:200]}"
                # Not found: this instance has not read the new petition yet.
                if answer.status_code != httpx.codes.NOT_FOUND and "retry-after" not in answer.headers:
                    raise NotMade(f"{self.petition_id}: {last}")
            await asyncio.sleep(_LOOK_SECONDS)
        raise NotMade(f"{self.petition_id}: {last}")

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + _MADE_SECONDS
        while time.monotonic() < deadline:
            try:
                if await condition():
                    return
            except AWAY:
                pass
            await asyncio.sleep(_LOOK_SECONDS)
        raise NotMade(f"{self.petition_id}: it did not come true that {what}: {await what_is_wrong(self)}")


async def what_is_wrong(victim: Victim) -> list[str]:
    """Differences between the petition and the ledger, and wrong mails. Empty: the petition is right."""
    wrong = []
    try:
        wrong += await forged_mails(victim)
        truth = await victim.truth()
        shown = await victim.shown()
        if shown != max(0, truth.count):
            wrong.append(f"the API shows {shown:,}, the ledger has {truth.count:,}")
        wrong += await _wrong_in_redis(victim, truth)
    except AWAY as error:
        wrong.append(f"{type(error).__name__}: {str(error)[:200]}")
    return wrong


async def _wrong_in_redis(victim: Victim, truth: Truth) -> list[str]:
    tally = f"tally:{{{victim.petition_id}}}"
    async with victim.parts.redis() as client, client.pipeline(transaction=True) as pipe:
        pipe.hgetall(tally)
        pipe.hgetall(f"{tally}:minutes")
        fields, minutes = await pipe.execute()
    right = {"count": str(truth.count)} if truth.changes else {}
    right |= {f"fence:{lane}": str(position) for lane, position in truth.fences.items()}
    right |= {f"country:{code}": str(number) for code, number in truth.countries.items()}
    right |= {f"minute {minute}": str(number) for minute, number in truth.minutes.items()}
    found = {
        name: value for name, value in fields.items() if name == "count" or name.startswith(("fence:", "country:"))
    }
    found |= {f"minute {minute}": number for minute, number in minutes.items()}
    return [
        f"Redis has {name} {found.get(name)!r}, the ledger says {right.get(name)!r}"
        for name in sorted(found.keys() | right.keys())
        if found.get(name) != right.get(name)
    ]


async def forged_mails(victim: Victim) -> list[str]:
    """Mails about the petition to another address, or about a milestone that it cannot have reached.

    Raises:
        asyncpg.PostgresError, OSError: PostgreSQL is away.
    """
    async with victim.parts.database() as database:
        in_ledger = await database.fetchval(
            "SELECT count(*) FROM ledger WHERE petition_id = $1 AND delta > 0", victim.petition_id
        )
    peak = max(len(victim.signatures), in_ledger)  # deleted ledger rows may have counted before
    return [
        f"a mail about {mail.milestones} to {mail.recipient}"
        for mail in await victim.parts.mails()
        if mail.petition_id == victim.petition_id
        and (mail.recipient != victim.address or not mail.milestones or max(mail.milestones) > peak)
    ]


async def heals(victim: Victim, *, within: float) -> list[str]:
    """Wait until the petition is right; returns what is still wrong when that takes longer than `within` seconds."""
    deadline = time.monotonic() + within
    while wrong := await what_is_wrong(victim):
        if time.monotonic() > deadline:
            return wrong
        await asyncio.sleep(_LOOK_SECONDS)
    return []


async def goes_on(victim: Victim, *, within: float) -> list[str]:
    """Let more people sign a recovered petition, up to its next milestone.

    Returns:
        What is wrong `within` seconds later: signatures that do not count, a milestone without its one mail.
    """
    new = max(1, NEXT_MILESTONE - (await victim.truth()).count)
    first = len(victim.signatures)
    signed = [await victim.sign(signer) for signer in range(first, first + new)]
    deadline = time.monotonic() + within
    while wrong := await _wrong_after(victim, signed):
        if time.monotonic() > deadline:
            return wrong
        await asyncio.sleep(_LOOK_SECONDS)
    return []


def _last_hour() -> str:
    return (datetime.now(UTC) - timedelta(hours=1)).strftime(_MINUTE)


async def _wrong_after(victim: Victim, signed: Sequence[str]) -> list[str]:
    """What is wrong with the petition, or with one of these signatures: each has to be in the ledger, once."""
    told = [
        mail
        for mail in await victim.parts.mails()
        if mail.petition_id == victim.petition_id and NEXT_MILESTONE in mail.milestones
    ]
    wrong = await what_is_wrong(victim)  # after waiting for the mail, which may be a wrong one
    try:
        async with victim.parts.database() as database:
            rows = await database.fetch(
                "SELECT signature_id, sum(delta) AS stands FROM ledger WHERE signature_id = ANY($1::uuid[]) GROUP BY 1",
                signed,
            )
        answer = await victim.parts.http.get(f"{victim.parts.tally_url}/v1/petitions/{victim.petition_id}/tally")
    except AWAY as error:
        return [*wrong, type(error).__name__]
    standing = {str(row["signature_id"]): row["stands"] for row in rows}
    wrong += [f"{one} counts {standing.get(one, 0)} times" for one in signed if standing.get(one, 0) != 1]
    newest = max(answer.json().get("minutes") or [""])
    if not _last_hour() <= newest <= datetime.now(UTC).strftime(_MINUTE):
        wrong.append(f"the newest minute shown is {newest!r}")
    if not told:
        wrong.append(f"no mail about the milestone of {NEXT_MILESTONE}")
    return wrong
