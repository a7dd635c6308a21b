"""What makes a process a service: health, metrics, documents, a graceful stop, and an exit code that tells the truth.

A service's `app.py` builds its parts and hands them to `Service`; `run` serves until SIGTERM or SIGINT and returns 0, or
until a bug stops a consumer and returns 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import structlog
import uvicorn
from aiokafka.errors import KafkaError
from faststream.asgi import AsgiFastStream, AsyncAPIRoute
from faststream.kafka import KafkaBroker
from faststream.kafka.prometheus import KafkaPrometheusMiddleware
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, make_asgi_app
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.asyncapi import TopicsDocument
from shared.kafka import unpacking
from shared.kafka.security import broker_security
from shared.runtime import event_loop, failpoints
from shared.runtime.background import background, where
from shared.runtime.readiness import LOOK_SECONDS, Check, Readiness
from shared.runtime.settings import CommonSettings, SettingsError, load
from shared.runtime.telemetry import configure_logging
from shared.web.accepting import PromptServer
from shared.web.connections import Connections, raise_open_files, uvicorn_options

log = structlog.get_logger(__name__)

SomeSettings = TypeVar("SomeSettings", bound=CommonSettings)

_SLACK_SECONDS = 5.0
"""A stop may take its drain budget for HTTP requests, for the batch in hand, and for what the producer has not sent; beyond
that and this slack it hangs."""

_OWN_PATHS = "/v1/"

_OWN_FILES = 200
"""Open files besides the clients' connections: those to Kafka, PostgreSQL and Redis, logs, libraries."""


def new_registry() -> CollectorRegistry:
    """A registry of the process's own metrics, with CPU, memory and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def new_broker(settings: CommonSettings, registry: CollectorRegistry, service: str) -> KafkaBroker:
    """A FastStream broker that never creates topics and reports its consumption to `registry`.

    Its consumers read past what they cannot unpack (`shared.kafka.unpacking`).
    """
    unpacking.install()
    return KafkaBroker(
        [server.strip() for server in settings.kafka_bootstrap_servers.split(",")],
        client_id=f"groundswell-{service}",
        security=broker_security(settings),
        allow_auto_create_topics=False,
        consumer_only=True,  # `EventProducer` publishes; the broker's own producer and admin client would only connect
        # Its own lines, two for every batch, say nothing that the metrics do not; its warnings do.
        logger=logging.getLogger("groundswell.faststream"),
        log_level=logging.DEBUG,
        metadata_max_age_ms=30_000,  # a topic or partition that was added is found within half a minute
        graceful_timeout=settings.drain_seconds,
        middlewares=[KafkaPrometheusMiddleware(registry=registry, app_name=service, metrics_prefix="faststream")],
    )


class _Application(AsgiFastStream):
    """FastStream's ASGI application, which matches whole paths only, with the service's own routes behind it."""

    def __init__(
        self,
        broker: KafkaBroker,
        *,
        routes: ASGIApp | None,
        on_bug: Callable[[BaseException], None],
        **options: Any,
    ) -> None:
        super().__init__(broker, **options)
        self._broker, self._own_routes, self._on_bug = broker, routes, on_bug

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # Straight to the service's own API, which no whole path of FastStream's is in.
        if self._own_routes is not None and scope["type"] == "http" and scope["path"].startswith(_OWN_PATHS):
            return cast("Coroutine[Any, Any, None]", self._own_routes(scope, receive, send))
        return super().__call__(scope, receive, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._own_routes is None or scope["type"] != "http":
            await super().not_found(scope, receive, send)
        else:
            await self._own_routes(scope, receive, send)

    @asynccontextmanager
    async def start_lifespan_context(
        self, run_extra_options: dict[str, Any] | None = None
    ) -> AsyncGenerator[None, None]:
        """What is around serving: the service's own connections, and inside them the broker.

        FastStream's own one gives up when Kafka is away at the start, and leaves the process serving HTTP after a bug.
        """
        async with self.lifespan_context(), background(self._on_bug, self._start_when_reachable()):
            try:
                yield
            finally:
                await self.stop()

    async def _start_when_reachable(self) -> None:
        """Connect, and keep trying while Kafka is away: HTTP is served and /readyz says what is missing."""
        backoff = 0.2
        while True:
            try:
                await self.start()
            except (KafkaError, OSError) as error:
                log.warning("kafka_away_at_start", cause=type(error).__name__, wait=backoff)
                # Some subscribers may run by now. Started once more, each would have two consumers, in one group.
                await self._broker.stop()
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, 5.0)
            else:
                return


class Service:
    """One process of Groundswell.

    Args:
        name: ``ingest``, ``verify``, ``tally`` or ``notify``.
        settings: The service's settings.
        port: The HTTP port.
        broker: From `new_broker`, with the subscribers registered.
        registry: The metrics to serve.
        lifespan: Opens the service's own connections and background tasks, and closes them; entered before the broker
            starts, left after it has stopped.
        checks: Readiness checks by the name of what is away when they fail (`shared.runtime.readiness`).
        side_checks: The same for what the service's public work does without: `/readyz` names it while it is away, and
            stays 200, or a load balancer would turn the public work away too.
        routes: The service's own HTTP routes, if it has any.
        on_stop: Called when the process stops, once open HTTP requests have ended and before the consumers are stopped.
    """

    def __init__(
        self,
        *,
        name: str,
        title: str,
        settings: CommonSettings,
        port: int,
        broker: KafkaBroker,
        registry: CollectorRegistry,
        lifespan: Callable[[], contextlib.AbstractAsyncContextManager[None]],
        checks: dict[str, Check],
        side_checks: dict[str, Check] | None = None,
        routes: ASGIApp | None = None,
        on_stop: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.name, self.settings, self.port = name, settings, port
        self.readiness = Readiness(checks, side_checks or {}, registry)
        self._server: uvicorn.Server | None = None
        self._failed: BaseException | None = None
        self._force: asyncio.TimerHandle | None = None
        self._connections = Connections(
            most=settings.max_connections,
            head_seconds=settings.http_head_seconds,
            stall_seconds=settings.http_stall_seconds,
            registry=registry,
        )

        @asynccontextmanager
        async def around() -> AsyncIterator[None]:
            async with lifespan():
                yield
            if self._force is not None:
                self._force.cancel()  # all is closed

        self.app = _Application(
            broker,
            routes=routes,
            on_bug=self.fail,
            logger=None,
            lifespan=around,
            on_shutdown=[_on_the_loop(stop) for stop in (self._limit_the_stop, *on_stop)],
            specification=TopicsDocument(
                title=title, version="1.0.0", description=f"Topics of Groundswell's {name} service."
            ),
            # No try-it-out page: it would let anyone who reaches the port publish.
            asyncapi_path=AsyncAPIRoute("/docs/asyncapi", try_it_out_path=None),
            asgi_routes=[
                ("/livez", _alive),
                ("/readyz", self._ready),
                ("/metrics", make_asgi_app(registry=registry)),
            ],
        )

    def fail(self, bug: BaseException) -> None:
        """End the process with exit code 1: an unexpected exception was raised where going on could lose signatures."""
        if self._failed is None:
            self._failed = bug
            log.error("bug", exc_info=bug)
        if self._server is not None:
            self._server.should_exit = True

    def _limit_the_stop(self) -> None:
        """End the process by force if its stop hangs: whoever waits for it, a deployment for example, must not hang too.

        Nothing is lost by that which a crash would not lose: what is not finished was not committed.
        """
        seconds = 3 * self.settings.drain_seconds + _SLACK_SECONDS
        self._force = asyncio.get_running_loop().call_later(seconds, self._stop_hangs)

    def _stop_hangs(self) -> None:
        log.error("stop_hangs", tasks=[where(task) for task in asyncio.all_tasks() if not task.done()])
        logging.shutdown()
        os._exit(1)

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        checks = await self.readiness.look()
        status = self.readiness.status(checks) if self._failed is None else "not ready"
        body = {"status": status, "service": self.name, "checks": checks}
        await JSONResponse(body, 503 if status == "not ready" else 200)(scope, receive, send)

    async def _watch_readiness(self) -> None:
        """Keep the metric true also where nobody asks /readyz. Runs until it is cancelled or the server stops."""
        while self._server is None or not self._server.should_exit:
            await self.readiness.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def serve(self) -> int:
        """Serve until a signal or a bug ends it. Returns the exit code."""
        config = uvicorn.Config(
            self.app,
            host=self.settings.host,
            port=self.port,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            interface="asgi3",  # uvicorn takes an application that is no coroutine function for an older kind
            timeout_graceful_shutdown=max(1, int(self.settings.drain_seconds)),
            backlog=4096,
            **uvicorn_options(self._connections),
        )
        _collect_seldom()
        raise_open_files(self.settings.max_connections + _OWN_FILES)
        self._server = PromptServer(config)
        log.info("starting", port=self.port)
        async with background(self.fail, self._connections.sweep(), self._watch_readiness()):
            await self._server.serve()
        if not self._server.started:
            return 1
        log.info("stopped", failed=self._failed is not None)
        return 1 if self._failed is not None else 0

    def run(self) -> int:
        """Serve on a fresh event loop. Returns the exit code."""
        # uvicorn raises the signal again once it has stopped; without this, SIGTERM would end a clean stop with code 143.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        return event_loop.run(self.serve())


def main(name: str, settings: type[SomeSettings], build: Callable[[SomeSettings], Service]) -> int:
    """Load settings, configure logs, build the service and run it. Returns the exit code: 2 for wrong settings."""
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


def _collect_seldom() -> None:
    """Tell the garbage collector that little here is its business: reference counts free what requests and batches leave.

    With its defaults it walks over what is open, thousands of requests, after every 700 new objects: a tenth of the time of
    a busy ingest, and pauses of 30 ms. What modules and frameworks have made by now stays for good.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _on_the_loop(stop: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """`stop` as FastStream has to be given it: it calls plain functions in another thread, where no event can be set."""

    async def call() -> None:
        stop()

    return call


async def _alive(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("alive\n", media_type="text/plain")(scope, receive, send)
