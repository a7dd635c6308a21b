"""Serves the peers with HTTP like Groundswell: with uvicorn, uvloop and httptools."""

from __future__ import annotations

import os

import uvicorn


def serve(application: str) -> None:
    """Serve `application` ("module:name") on HOST and PORT until a signal ends it; in WEB_CONCURRENCY processes."""
    uvicorn.run(
        application,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )
