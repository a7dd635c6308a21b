"""A petition that is unpublished while signatures are in flight, on the whole system."""

from __future__ import annotations

import asyncio
import json

from tests.support.system import System
from tests.support.waiting import eventually

TARGET = {"target_id": "council", "name": "The Harbour Council", "kind": "body", "email": "hidden@council.test"}


async def test_an_unpublished_petition_is_nowhere_to_be_seen_its_mails_wait_and_what_was_accepted_counts(
    system: System,
) -> None:
    petition_id, slug = "out-of-sight", "quiet-harbour"
    organisation = {"slug": slug, "name": "Quiet Harbour"}
    await system.start_petition(petition_id, milestones=[5], targets=[TARGET], organisation=organisation)
    await system.start_petition("in-sight", organisation=organisation)
    await system.surge("in-sight", range(2))
    await system.counts_to("in-sight", 2)
    address = f"{system.ingest}/v1/petitions/{petition_id}"
    verify = system.stack.services["verify"][0]
    await verify.stop()
    accepted = await system.surge(petition_id, range(6))
    assert len(accepted) == 6

    begun = asyncio.Event()
    watching = asyncio.create_task(_watch(system, f"/v1/petitions/{petition_id}/tally/stream", begun))
    await begun.wait()
    await _publish(system, address, published=False)
    async with asyncio.timeout(60):
        assert "event: tally" in await watching  # it ends by itself
    for path in (f"/p/{petition_id}", f"/v1/petitions/{petition_id}/tally"):
        await eventually(lambda path=path: _status(system, path, 404), f"{path} is gone")
    shown = (await system.http.get(f"{system.tally}/v1/organisations/{slug}")).json()
    assert (shown["supporters"], [one["petition_id"] for one in shown["petitions"]]) == (2, ["in-sight"])

    await verify.start()
    await system.decided(petition_id, 6)
    assert await system.states(petition_id) == {"verified": 6}

    async def waits() -> bool:
        query = "SELECT count(*) FROM milestones_waiting WHERE petition_id = $1"
        return bool(await system.database.fetchval(query, petition_id))

    await eventually(waits, "the milestone waits", 60)
    assert system.stack.mailbox is not None
    assert await system.stack.mailbox.messages(to=TARGET["email"]) == []

    await _publish(system, address, published=True)
    await system.is_proved(petition_id, 6)

    async def mailed() -> bool:
        assert system.stack.mailbox is not None
        return len(await system.stack.mailbox.messages(to=TARGET["email"])) == 1

    await eventually(mailed, "the mail has gone out", 60)


async def _publish(system: System, address: str, *, published: bool) -> None:
    headers = {**system.admin, "content-type": "application/merge-patch+json"}
    answer = await system.http.patch(address, content=json.dumps({"published": published}), headers=headers)
    assert answer.status_code == 200, answer.text


async def _status(system: System, path: str, status: int) -> bool:
    return (await system.http.get(f"{system.tally}{path}")).status_code == status


async def _watch(system: System, path: str, begun: asyncio.Event) -> str:
    """All of a stream, until it ends; `begun` is set once something of it has come."""
    seen = ""
    async with system.http.stream("GET", f"{system.tally}{path}", timeout=90) as stream:
        async for text in stream.aiter_text():
            seen += text
            begun.set()
    return seen
