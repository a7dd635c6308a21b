"""The hub between ``tallies.updated`` and the browsers' streams: one per process, in memory.

Contract:
- `LiveHub.publish` never waits. An update is encoded once per form that has subscribers, however many these are.
- A subscription holds at most one update per petition, the newest: a slow subscriber gets fewer updates, never older ones,
  and costs no memory.
- No subscriber is sent the same version of a petition's tally twice, or a lower one after a higher.
- `LiveHub.close` ends every stream after sending what it holds; after it, new subscriptions are refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from enum import Enum
from typing import Final

from services.tally.reading.metrics import ReadMetrics
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged, TallyUpdated

MAX_SUBSCRIBERS: Final = 5_000
"""Most streams of one process. A subscriber costs about 45 KB and an update to it 45 µs of CPU: at this bound that is 225 MB,
and one update of a petition that all of them watch takes a quarter of a second."""


Version = tuple[int, int]
"""Epoch and revision of a tally (`shared.contract.events.TallyUpdated`)."""

_NONE: Final[Version] = (0, -1)
"""Below every version."""


class Form(Enum):
    """The content of a stream."""

    TALLY = "tally"
    """Whole snapshots of one petition, as on the topic ``tallies.updated``."""
    COUNT = "count"
    """The count of one petition, without break-downs: a thirtieth of the bytes, all that a page needs."""
    ORGANISATION = "organisation"
    """The counts of all petitions of one organisation, and their sum."""


class HubFull(Exception):
    """This process already serves the most streams that it may."""


class HubClosed(Exception):
    """This process is stopping."""


def frame(event: str, data: str, event_id: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2). `data` is one line, as JSON without indentation is."""
    identity = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {event}\n{identity}data: {data}\n\n".encode()


def compact(value: object) -> str:
    """JSON in one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Subscription:
    """One subscriber's stream: it holds the newest update of each petition that was not sent yet.

    `end` must be called when the subscriber is gone.
    """

    def __init__(self, hub: LiveHub, form: Form, key: str) -> None:
        self.form, self.key = form, key
        self._hub = hub
        self._first = b""
        self._begun_at: dict[str, Version] = {}
        self._waiting: dict[str, tuple[Version, bytes]] = {}
        self._woken = asyncio.Event()
        self._finished = False

    def begin(self, first: bytes, versions: dict[str, Version]) -> None:
        """Send `first` before anything else; it includes updates up to `versions` (by petition)."""
        self._first = first
        self._begun_at = versions
        for petition_id in [p for p, (version, _) in self._waiting.items() if version <= versions.get(p, _NONE)]:
            del self._waiting[petition_id]
        self.wake()

    def offer(self, petition_id: str, version: Version, update: bytes) -> bool | None:
        """Queue an update. The hub offers each subscriber the versions of a petition in rising order.

        Returns:
            None if the first event included it, else whether it replaces an older one that was still queued.
        """
        if version <= self._begun_at.get(petition_id, _NONE):
            return None
        # Removed and inserted again: the last update sent must be the latest of all, because its sum remains.
        replaced = self._waiting.pop(petition_id, None) is not None
        self._waiting[petition_id] = (version, update)
        self.wake()
        return replaced

    def wake(self) -> None:
        """Let `chunks` look for something to send."""
        self._woken.set()

    def finish(self) -> None:
        """End the stream after sending what it holds: there is nothing more to watch."""
        self._finished = True
        self.wake()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what to send, as it comes; ends when the hub closes, or there is nothing more to watch."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            if chunk := self._take():
                yield chunk
            elif self._hub.closed or self._finished:
                return
            if self._waiting or self._hub.closed or self._finished:
                self._woken.set()

    def _take(self) -> bytes:
        chunk = self._first + b"".join(update for _, update in self._waiting.values())
        self._first = b""
        self._waiting.clear()
        return chunk

    def end(self) -> None:
        """Release the place in the hub. Idempotent."""
        self._hub.leave(self)


class LiveHub:
    """Passes announced tallies on to subscribers, and keeps the newest one of each petition.

    It gets every record of ``tallies.updated`` from the topic's beginning, so it knows the count of every petition that ever
    had a signature, even while Redis is away.
    """

    def __init__(self, catalogue: Catalogue, metrics: ReadMetrics, *, max_subscribers: int = MAX_SUBSCRIBERS) -> None:
        self._catalogue, self._metrics, self._max_subscribers = catalogue, metrics, max_subscribers
        self._newest: dict[str, TallyUpdated] = {}
        # Counts read when an organisation's stream began, as (version, count). They only complete the sum: an update
        # must not be suppressed because its version was *read* for one stream.
        self._read: dict[str, tuple[Version, int]] = {}
        self._watching: dict[tuple[Form, str], set[Subscription]] = {}
        self._subscribers = 0
        self.closed = False

    def publish(self, snapshot: TallyUpdated) -> bool:
        """Take over an announced tally and pass it on. Returns False if its version is not above the known one."""
        petition_id = snapshot.petition_id
        known = self._newest.get(petition_id)
        if known is not None and snapshot.version <= known.version:
            self._metrics.snapshots.labels(kind="stale").inc()
            return False
        self._metrics.snapshots.labels(kind="fresh").inc()
        self._newest[petition_id] = snapshot
        for form in (Form.TALLY, Form.COUNT):
            if watching := self._watching.get((form, petition_id)):
                self._offer(watching, snapshot, petition_frame(form, snapshot))
        petition = self._catalogue.published(petition_id)
        if petition is not None:
            slug = petition.organisation.slug
            if watching := self._watching.get((Form.ORGANISATION, slug)):
                self._offer(watching, snapshot, self._organisation_update(slug, snapshot))
        return True

    def newest(self, read: TallyUpdated) -> TallyUpdated:
        """The announced tally of `read`'s petition if its version is higher, else `read` itself."""
        known = self._newest.get(read.petition_id)
        return known if known is not None and known.version > read.version else read

    def announced(self, petition_id: str) -> TallyUpdated | None:
        """The newest announced tally of a petition; None if there is none yet."""
        return self._newest.get(petition_id)

    def subscribe(self, form: Form, key: str) -> Subscription:
        """Open one more stream of `form` about a petition or organisation. Follow with `Subscription.begin`.

        Raises:
            HubFull: this process serves the most streams that it may.
            HubClosed: the process is stopping.
        """
        if self.closed:
            raise HubClosed
        if self._subscribers >= self._max_subscribers:
            raise HubFull
        subscription = Subscription(self, form, key)
        self._watching.setdefault((form, key), set()).add(subscription)
        self._count(+1)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Release a subscription's place. Idempotent."""
        key = (subscription.form, subscription.key)
        watching = self._watching.get(key, set())
        if subscription in watching:
            watching.remove(subscription)
            self._count(-1)
        if not watching:
            self._watching.pop(key, None)

    def petition_changed(self, petition: PetitionChanged) -> None:
        """End the streams about a petition that is no longer published, and those of its organisation.

        Browsers reconnect to the organisation's stream, and then get its other petitions and their sum.
        """
        if petition.published:
            return
        for key in (
            (Form.TALLY, petition.petition_id),
            (Form.COUNT, petition.petition_id),
            (Form.ORGANISATION, petition.organisation.slug),
        ):
            for subscription in self._watching.get(key, ()):
                subscription.finish()

    def close(self) -> None:
        """End all streams, because the process is stopping. Idempotent."""
        self.closed = True
        for watching in self._watching.values():
            for subscription in watching:
                subscription.wake()

    def organisation_snapshot(self, slug: str, tallies: Iterable[TallyUpdated]) -> bytes:
        """The first event of an organisation's stream: every petition's count, and the sum."""
        counts = []
        for tally in tallies:
            self._read[tally.petition_id] = (tally.version, tally.count)
            counts.append(_count_body(tally))
        body = {"slug": slug, "supporters": self._supporters(slug), "petitions": counts}
        return frame("organisation", compact(body))

    def _organisation_update(self, slug: str, snapshot: TallyUpdated) -> bytes:
        return frame("tally", compact({**_count_body(snapshot), "supporters": self._supporters(slug)}))

    def _supporters(self, slug: str) -> int:
        total = 0
        for petition in self._catalogue.of_organisation(slug):
            announced = self._newest.get(petition.petition_id)
            version, count = self._read.get(petition.petition_id, (_NONE, 0))
            total += announced.count if announced is not None and announced.version >= version else count
        return total

    def _offer(self, watching: set[Subscription], snapshot: TallyUpdated, update: bytes) -> None:
        queued = replaced = 0
        for subscription in watching:
            fate = subscription.offer(snapshot.petition_id, snapshot.version, update)
            queued += fate is not None
            replaced += fate is True
        self._metrics.frames.labels(fate="queued").inc(queued)
        self._metrics.frames.labels(fate="replaced").inc(replaced)

    def _count(self, change: int) -> None:
        self._subscribers += change
        self._metrics.subscribers.set(self._subscribers)


def petition_frame(form: Form, snapshot: TallyUpdated) -> bytes:
    """The event that carries `snapshot` on a petition's stream; its id is the version."""
    data = snapshot.model_dump_json() if form is Form.TALLY else compact(_count_body(snapshot))
    return frame("tally", data, version_text(snapshot.version))


def version_text(version: Version) -> str:
    """A version as an event's id: the revision, after the epoch if that is not 0."""
    epoch, revision = version
    return f"{epoch}-{revision}" if epoch else str(revision)


def read_version(text: str) -> Version | None:
    """The version in a text of `version_text`; None if it is not one."""
    found = _VERSION.fullmatch(text)
    return None if found is None else (int(found[1] or 0), int(found[2]))


_VERSION: Final = re.compile(r"(?:([0-9]{1,15})-)?([0-9]{1,15})", re.ASCII)


def _count_body(tally: TallyUpdated) -> dict[str, str | int]:
    epoch: dict[str, str | int] = {"epoch": tally.epoch} if tally.epoch else {}
    return {"petition_id": tally.petition_id, "count": tally.count, "revision": tally.revision, **epoch}
