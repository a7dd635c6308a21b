"""The parts of the reading half: pages, API and streams."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp

from services.tally.reading import routes
from services.tally.reading.counts import TallyReader
from services.tally.reading.live import LiveHub
from services.tally.reading.live_feed import LiveFeed
from services.tally.reading.metrics import ReadMetrics
from services.tally.reading.pages import PublicAddresses
from services.tally.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.contract.events import TallyUpdated
from shared.service import Base


class Reading:
    """The reading half. It is made before the counting half, which compares its counts with the snapshots of `hub`.

    Attributes:
        hub: Holds the newest snapshots and serves the streams.
    """

    def __init__(self, base: Base[Settings], catalogue: Catalogue) -> None:
        self._base, self._catalogue = base, catalogue
        self._metrics = ReadMetrics(base.registry)
        self.hub = LiveHub(catalogue, self._metrics, max_subscribers=base.settings.max_streams)

    def feed(
        self,
        *,
        on_overtaken: Callable[[str, tuple[int, int]], None],
        on_announced: Callable[[TallyUpdated, bytes], None],
    ) -> LiveFeed:
        """The feed that fills the hub; see `LiveFeed` for the arguments."""
        return LiveFeed(
            self.hub,
            self._metrics,
            on_bug=self._base.crash.fail,
            on_overtaken=on_overtaken,
            on_announced=on_announced,
        )

    def routes(self, counts: TallyReader) -> ASGIApp:
        """The HTTP routes; `counts` reads the present counts."""
        settings = self._base.settings
        return routes.build(
            self._catalogue,
            counts,
            self.hub,
            self._metrics,
            addresses=PublicAddresses(ingest=settings.public_ingest_url.rstrip("/"), pages=settings.public_pages_url),
            stall_seconds=settings.http_stall_seconds,
        )
