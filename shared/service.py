"""The frame of every service: health checks, metrics, documents, a graceful stop, and an accurate exit code.

A service's `app.py` builds its parts and passes them to `Service`; `run` serves until SIGTERM or SIGINT and returns 0, or
until a bug triggers the crash switch and returns 1.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import structlog
import uvicorn
from faststream.asgi import AsyncAPIRoute
from faststream.kafka import KafkaBroker
from faststream.kafka.prometheus import KafkaPrometheusMiddleware
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, make_asgi_app
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.application import Application
from shared.asyncapi import TopicsDocument
from shared.kafka.fetching import unpacking
from shared.kafka.security import broker_security
from shared.runtime import event_loop, failpoints, process
from shared.runtime.background import background
from shared.runtime.crash import CrashSwitch
from shared.runtime.parts import Part, running
from shared.runtime.readiness import LOOK_SECONDS, Check, Readiness
from shared.runtime.settings import CommonSettings, SettingsError, load
from shared.runtime.telemetry import configure_logging
from shared.web.connections import Connections
from shared.web.server import new_server

log = structlog.get_logger(__name__)

SomeSettings = TypeVar("SomeSettings", bound=CommonSettings)


def new_registry() -> CollectorRegistry:
    """Return a registry of the process's own metrics, with CPU, memory and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def new_broker(settings: CommonSettings, registry: CollectorRegistry, service: str) -> KafkaBroker:
    """Return a FastStream broker that never creates topics and registers its metrics in `registry`.

    Its consumers read past what they cannot unpack (`shared.kafka.fetching.unpacking`).
    """
    unpacking.install()
    return KafkaBroker(
        [server.strip() for server in settings.kafka_bootstrap_servers.split(",")],
        client_id=f"groundswell-{service}",
        security=broker_security(settings),
        allow_auto_create_topics=False,
        consumer_only=True,  # `EventProducer` publishes; the broker's own producer and admin client would only connect
        # FastStream's own two lines per batch repeat the metrics; its warnings do not.
        logger=logging.getLogger("groundswell.faststream"),
        log_level=logging.DEBUG,
        metadata_max_age_ms=30_000,  # finds new topics and partitions within half a minute
        graceful_timeout=settings.drain_seconds,
        middlewares=[KafkaPrometheusMiddleware(registry=registry, app_name=service, metrics_prefix="faststream")],
    )


class Base(Generic[SomeSettings]):
    """What all parts of a service use: created before them and passed to them.

    Attributes:
        name: ``ingest``, ``verify``, ``tally`` or ``notify``.
        settings: The service's settings.
        crash: Ends the process; parts report bugs to it.
        registry: The metrics that the process serves.
        broker: The broker at which parts register their subscribers.
    """

    def __init__(self, name: str, settings: SomeSettings, registry: CollectorRegistry | None = None) -> None:
        self.name, self.settings = name, settings
        self.crash = CrashSwitch()
        self.registry = registry or new_registry()
        self.broker = new_broker(settings, self.registry, name)


class Service:
    """One process of Groundswell.

    It starts in this order:

    1. Every part's `run`, in the order of the parts.
    2. The broker, with its subscribers in the order in which they were registered. It connects in the background: while
       Kafka is away, the service goes on to
    3. HTTP.

    A signal or the crash switch stops it in this order:

    1. HTTP: no new connections; open requests get `drain_seconds`.
    2. A timer starts: if the rest does not end within three times `drain_seconds` plus five seconds, the process is ended
       by force with exit code 1.
    3. Every part's `stop`, in the order of the parts: consumers give up a held batch and take no other.
    4. The broker with its subscribers: the current batch gets `drain_seconds`, then the consumers leave their groups.
    5. Every part's `finish`, the last part first, while each `run` is still running.
    6. Every `run` is cancelled and awaited.
    7. Every part's `close`, the last part first. So parts that use the producer come after it, and the producer comes after
       the connections to databases.

    Args:
        base: The base of the parts, with their subscribers registered at its broker.
        port: The HTTP port.
        parts: See above.
        checks: Readiness checks, named after what is away when they fail (`shared.runtime.readiness`).
        side_checks: The same for what the service's public work does not need: `/readyz` names it while it is away but
            answers 200, because otherwise a load balancer would stop the public work too.
        routes: The service's own HTTP routes, if it has any.
    """

    def __init__(
        self,
        base: Base[Any],
        *,
        port: int,
        parts: Sequence[Part],
        checks: Mapping[str, Check],
        side_checks: Mapping[str, Check] | None = None,
        routes: ASGIApp | None = None,
    ) -> None:
        settings: CommonSettings = base.settings
        self.base, self.port = base, port
        self.readiness = Readiness(checks, side_checks or {}, base.registry)
        self.parts = parts
        self._server: uvicorn.Server | None = None
        self._stop_limit = process.StopLimit(settings.drain_seconds)
        self._connections = Connections(
            most=settings.max_connections,
            head_seconds=settings.http_head_seconds,
            stall_seconds=settings.http_stall_seconds,
            registry=base.registry,
        )
        self.app = Application(
            base.broker,
            routes=routes,
            on_bug=base.crash.fail,
            on_stop=[self._stop_limit.begin, *[part.stop for part in parts if part.stop is not None]],
            logger=None,
            lifespan=self._lifespan,
            specification=TopicsDocument(
                title=f"Groundswell {base.name}",
                version="1.0.0",
                description=f"Topics of Groundswell's {base.name} service.",
            ),
            # No try-it-out page: anyone who reaches the port could publish with it.
            asyncapi_path=AsyncAPIRoute("/docs/asyncapi", try_it_out_path=None),
            asgi_routes=[
                ("/livez", _alive),
                ("/readyz", self._ready),
                ("/metrics", make_asgi_app(registry=base.registry)),
            ],
        )

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        async with running(self.parts, self.base.crash):
            yield
        self._stop_limit.end()

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        checks = await self.readiness.look()
        status = self.readiness.status(checks) if self.base.crash.bug is None else "not ready"
        body = {"status": status, "service": self.base.name, "checks": checks}
        await JSONResponse(body, 503 if status == "not ready" else 200)(scope, receive, send)

    async def _watch_readiness(self) -> None:
        """Keep the metric current without requests to /readyz. Runs until cancelled or until the server stops."""
        while self._server is None or not self._server.should_exit:
            await self.readiness.look()
            await asyncio.sleep(LOOK_SECONDS)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True

    async def serve(self) -> int:
        """Serve until a signal or a bug. Returns the exit code."""
        crash = self.base.crash
        self._server = new_server(self.app, self._connections, self.base.settings, self.port)
        crash.connect(self._stop)
        process.collect_seldom()
        log.info("starting", port=self.port)
        async with background(crash.fail, self._connections.sweep(), self._watch_readiness()):
            await self._server.serve()
        if not self._server.started:
            return 1
        failed = crash.bug is not None
        log.info("stopped", failed=failed)
        return 1 if failed else 0

    def run(self) -> int:
        """Serve on a new event loop. Returns the exit code."""
        process.end_by_exit_code()
        return event_loop.run(self.serve())


def main(name: str, settings: type[SomeSettings], build: Callable[[SomeSettings], Service]) -> int:
    """Load settings, configure logs, build the service and run it. Returns the exit code: 2 for invalid settings."""
    try:
        loaded = load(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    configure_logging(loaded, name)
    for exposure in loaded.exposures():
        log.warning(
            "password_unencrypted", variable=exposure.variable, hosts=exposure.hosts, use_instead=exposure.advice
        )
    try:
        failpoints.announce(name)
    except failpoints.FailpointsMisconfigured as error:
        print(error, file=sys.stderr)
        return 2
    return build(loaded).run()


async def _alive(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("alive\n", media_type="text/plain")(scope, receive, send)
