"""The hub that passes announced tallies on to those who watch."""

import asyncio
import json
from typing import Any

import pytest

from services.tally.reading.live import Form, HubClosed, HubFull, Subscription
from tests.support.tally_read_fakes import BUS, HARBOUR, ReadSide, petition, tally


@pytest.fixture
def read_side() -> ReadSide:
    side = ReadSide(max_subscribers=3)
    side.catalogue.apply(petition(HARBOUR))
    side.catalogue.apply(petition(BUS))
    return side


def watch(side: ReadSide, form: Form = Form.COUNT, key: str = HARBOUR) -> Subscription:
    subscription = side.hub.subscribe(form, key)
    subscription.begin(b"", {})
    return subscription


async def take(subscription: Subscription) -> list[dict[str, Any]]:
    """The data of all events of the next chunk."""
    async with asyncio.timeout(60):
        chunk = await anext(aiter(subscription.chunks()))
    return [json.loads(line.removeprefix("data: ")) for line in chunk.decode().split("\n") if line.startswith("data: ")]


async def test_an_announced_tally_reaches_who_watches_that_petition(read_side: ReadSide) -> None:
    harbour, bus = watch(read_side), watch(read_side, key=BUS)
    read_side.hub.publish(tally(HARBOUR, 7))
    assert await take(harbour) == [{"petition_id": HARBOUR, "count": 7, "revision": 7}]
    read_side.hub.publish(tally(BUS, 1))
    assert await take(bus) == [{"petition_id": BUS, "count": 1, "revision": 1}]


async def test_a_full_stream_carries_the_event_as_it_is_on_the_topic(read_side: ReadSide) -> None:
    full = watch(read_side, Form.TALLY)
    snapshot = tally(HARBOUR, 7)
    read_side.hub.publish(snapshot)
    assert await take(full) == [json.loads(snapshot.model_dump_json())]


@pytest.mark.parametrize("revision", [6, 7])
async def test_a_revision_that_is_not_above_the_known_one_is_ignored(read_side: ReadSide, revision: int) -> None:
    assert read_side.hub.publish(tally(HARBOUR, 7))
    assert not read_side.hub.publish(tally(HARBOUR, 3, revision))
    assert read_side.hub.newest(tally(HARBOUR, 0)).count == 7
    assert read_side.metric("snapshots_total", kind="stale") == 1


async def test_a_count_may_fall_with_a_higher_revision(read_side: ReadSide) -> None:
    read_side.hub.publish(tally(HARBOUR, 7, revision=7))
    watcher = watch(read_side)
    read_side.hub.publish(tally(HARBOUR, 6, revision=8))
    assert await take(watcher) == [{"petition_id": HARBOUR, "count": 6, "revision": 8}]


async def test_a_slow_subscriber_gets_the_newest_and_nothing_in_between(read_side: ReadSide) -> None:
    slow = watch(read_side)
    for count in range(1, 1_001):
        read_side.hub.publish(tally(HARBOUR, count))
    assert await take(slow) == [{"petition_id": HARBOUR, "count": 1_000, "revision": 1_000}]
    assert read_side.metric("stream_frames_total", fate="replaced") == 999


async def test_an_update_that_the_first_event_included_is_not_sent_again(read_side: ReadSide) -> None:
    subscription = read_side.hub.subscribe(Form.COUNT, HARBOUR)
    read_side.hub.publish(tally(HARBOUR, 5))  # while the first event was being read, which is newer
    subscription.begin(b"", {HARBOUR: (0, 6)})
    read_side.hub.publish(tally(HARBOUR, 6))
    assert read_side.metric("stream_frames_total", fate="queued") == 1, "only the 5, which the first event replaced"
    read_side.hub.publish(tally(HARBOUR, 7))
    assert await take(subscription) == [{"petition_id": HARBOUR, "count": 7, "revision": 7}]


async def test_an_update_that_came_while_the_first_event_was_read_follows_it(read_side: ReadSide) -> None:
    subscription = read_side.hub.subscribe(Form.COUNT, HARBOUR)
    read_side.hub.publish(tally(HARBOUR, 5))
    subscription.begin(b'data: "first"\n\n', {HARBOUR: (0, 4)})
    assert await take(subscription) == ["first", {"petition_id": HARBOUR, "count": 5, "revision": 5}]


async def test_an_organisation_is_told_the_new_sum_with_each_update(read_side: ReadSide) -> None:
    watcher = watch(read_side, Form.ORGANISATION, "river-valley")
    read_side.hub.publish(tally(HARBOUR, 10))
    read_side.hub.publish(tally(BUS, 5))
    assert await take(watcher) == [
        {"petition_id": HARBOUR, "count": 10, "revision": 10, "supporters": 10},
        {"petition_id": BUS, "count": 5, "revision": 5, "supporters": 15},
    ]


async def test_the_last_update_that_an_organisation_is_sent_has_the_newest_sum(read_side: ReadSide) -> None:
    watcher = watch(read_side, Form.ORGANISATION, "river-valley")
    read_side.hub.publish(tally(HARBOUR, 10))
    read_side.hub.publish(tally(BUS, 5))
    read_side.hub.publish(tally(HARBOUR, 12))
    assert [(update["petition_id"], update["supporters"]) for update in await take(watcher)] == [
        (BUS, 15),
        (HARBOUR, 17),
    ]


async def test_a_sum_includes_petitions_that_were_read_but_never_announced(read_side: ReadSide) -> None:
    first = read_side.hub.organisation_snapshot("river-valley", [tally(HARBOUR, 100), tally(BUS, 50)])
    assert b'"supporters":150' in first
    watcher = watch(read_side, Form.ORGANISATION, "river-valley")
    read_side.hub.publish(tally(HARBOUR, 101))
    assert (await take(watcher))[0]["supporters"] == 151


async def test_a_petition_that_joins_an_organisation_is_in_the_next_sum(read_side: ReadSide) -> None:
    watcher = watch(read_side, Form.ORGANISATION, "river-valley")
    read_side.hub.publish(tally("new", 3))
    read_side.catalogue.apply(petition("new"))
    read_side.hub.publish(tally(HARBOUR, 1))
    assert await take(watcher) == [{"petition_id": HARBOUR, "count": 1, "revision": 1, "supporters": 4}]


async def test_beyond_the_bound_nobody_can_subscribe_until_someone_leaves(read_side: ReadSide) -> None:
    places = [watch(read_side) for _ in range(3)]
    with pytest.raises(HubFull):
        watch(read_side)
    places[0].end()
    places[0].end()  # again: nothing happens
    assert read_side.metric("stream_subscribers") == 2
    watch(read_side)


async def test_closing_sends_what_is_waiting_and_ends_every_stream(read_side: ReadSide) -> None:
    idle, busy = watch(read_side, key=BUS), watch(read_side)
    read_side.hub.publish(tally(HARBOUR, 7))
    read_side.hub.close()
    async with asyncio.timeout(60):
        assert [chunk async for chunk in idle.chunks()] == []
        assert len([chunk async for chunk in busy.chunks()]) == 1
    with pytest.raises(HubClosed):
        watch(read_side)


# ----------------------------------------------------------------------------------------------------------- unpublished


async def chunks(subscription: Subscription) -> bytes:
    """All that a stream carries until it ends."""
    async with asyncio.timeout(30):
        return b"".join([chunk async for chunk in subscription.chunks()])


async def test_the_streams_about_a_petition_end_when_it_is_unpublished_and_others_go_on(read_side: ReadSide) -> None:
    ended = [
        watch(read_side),
        watch(read_side, Form.TALLY),
        watch(read_side, Form.ORGANISATION, "river-valley"),
    ]
    read_side.hub.publish(tally(HARBOUR, 7))
    hidden = petition(HARBOUR, published=False)
    read_side.catalogue.apply(hidden)
    read_side.hub.petition_changed(hidden)
    for subscription in ended:
        assert b'"count":7' in await chunks(subscription)  # what it held is sent first
        subscription.end()
    bus = watch(read_side, key=BUS)
    organisation = watch(read_side, Form.ORGANISATION, "river-valley")
    read_side.hub.publish(tally(HARBOUR, 8))
    read_side.hub.publish(tally(BUS, 3))
    assert [event["count"] for event in await take(bus)] == [3]
    # The organisation's sum does not include or reveal the hidden one.
    assert await take(organisation) == [{"petition_id": BUS, "count": 3, "revision": 3, "supporters": 3}]


async def test_a_change_of_a_petition_that_stays_published_ends_no_stream(read_side: ReadSide) -> None:
    watcher = watch(read_side)
    read_side.hub.petition_changed(petition(HARBOUR, title="Another"))
    read_side.hub.publish(tally(HARBOUR, 7))
    assert [event["count"] for event in await take(watcher)] == [7]
