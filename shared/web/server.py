"""The HTTP server of a service: uvicorn with limits of connections."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from shared.runtime.settings import CommonSettings
from shared.web.accepting import PromptServer
from shared.web.connections import Connections, raise_open_files, uvicorn_options

_OWN_FILES = 200
"""Open files other than HTTP connections: those to Kafka, PostgreSQL and Redis, logs, libraries."""


def new_server(app: ASGIApp, connections: Connections, settings: CommonSettings, port: int) -> uvicorn.Server:
    """Return a server that is not listening yet, and raise this process's limit of open files as far as allowed."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        interface="asgi3",  # uvicorn would take an application that is not a coroutine function for ASGI 2
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        backlog=4096,
        **uvicorn_options(connections),
    )
    raise_open_files(settings.max_connections + _OWN_FILES)
    return PromptServer(config)
