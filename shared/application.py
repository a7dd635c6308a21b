"""The ASGI application of a service: FastStream's, with health checks, metrics and the service's own routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import structlog
from aiokafka.errors import KafkaError
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.runtime.background import background
from shared.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

_OWN_PATHS = "/v1/"

_BACKOFF: Final = Backoff(0.2, 5.0)
"""Seconds between two attempts to start the consumers."""


class Application(AsgiFastStream):
    """FastStream's ASGI application, which matches whole paths only, with the service's own routes behind it.

    It also starts while Kafka is away: HTTP is served, and /readyz says what is missing.

    Args:
        broker: The broker whose subscribers start and stop with the application.
        routes: The service's own HTTP routes, if it has any.
        on_bug: Ends the process; called if the broker cannot be started for another reason than Kafka being away.
        on_stop: Called in this order after open HTTP requests have ended and before the subscribers are stopped.
        options: Options of `AsgiFastStream`.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        *,
        routes: ASGIApp | None,
        on_bug: Callable[[BaseException], None],
        on_stop: Sequence[Callable[[], None]],
        **options: Any,
    ) -> None:
        super().__init__(broker, on_shutdown=[_on_the_loop(stop) for stop in on_stop], **options)
        self._broker, self._own_routes, self._on_bug = broker, routes, on_bug

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # Bypasses FastStream's routing for the service's API: FastStream has no path under it.
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
        """Run the service's parts, and within them the broker, while HTTP is served.

        FastStream's own method fails if Kafka is away at the start, and lets the process serve HTTP after a bug.
        """
        async with self.lifespan_context(), background(self._on_bug, self._start_when_reachable()):
            try:
                yield
            finally:
                await self.stop()

    async def _start_when_reachable(self) -> None:
        """Connect, and keep trying while Kafka is away."""
        failures = 0
        while True:
            try:
                await self.start()
            except (KafkaError, OSError) as error:
                failures += 1
                wait = _BACKOFF.after(failures)
                log.warning("kafka_away_at_start", cause=type(error).__name__, wait=wait)
                # Some subscribers may be running. If started again, each would have two consumers in one group.
                await self._broker.stop()
                await asyncio.sleep(wait)
            else:
                return


def _on_the_loop(stop: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """Wrap `stop` in a coroutine function: FastStream calls plain functions in a thread, where no asyncio event can be set."""

    async def call() -> None:
        stop()

    return call
