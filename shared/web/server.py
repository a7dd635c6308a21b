"""The HTTP server of a service: uvicorn, with our rules for connections."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from shared.runtime.settings import CommonSettings
from shared.web.accepting import PromptServer
from shared.web.connections import Connections, raise_open_files, uvicorn_options

_OWN_FILES = 200
"""Open files besides the clients' connections: those to Kafka, PostgreSQL and Redis, logs, libraries."""


def new_server(app: ASGIApp, connections: Connections, settings: CommonSettings, port: int) -> uvicorn.Server:
    """A server that is not listening yet. It raises this process's limit of open files where it may."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        interface="asgi3",  # uvicorn takes an application that is no coroutine function for an older kind
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        backlog=4096,
        **uvicorn_options(connections),
    )
    raise_open_files(settings.max_connections + _OWN_FILES)
    return PromptServer(config)
