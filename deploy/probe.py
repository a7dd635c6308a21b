"""Health check of this container's own HTTP server: ``python -m deploy.probe INGEST_PORT /livez``.

The images have no curl. Exit status 0 means an answer of 200, 1 anything else (Docker reserves 2). The answer is printed,
because Docker keeps it: ``docker inspect`` then shows which dependency is missing according to ``/readyz``.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 3.0
"""Below the health check's own time limit, so that the reason is printed before Docker kills the probe."""

SHOWN_BYTES = 2_048
"""Docker keeps 4 KiB of a probe's output."""


def probe(port: int, path: str) -> tuple[bool, str]:
    """Return whether ``GET path`` on loopback answers 200, and the answer.

    Proxies in the environment are not used: they could not reach this container's loopback address.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(SHOWN_BYTES).decode("utf-8", errors="replace")
    except (OSError, HTTPException) as error:
        return False, f"no answer on port {port}: {error!r}"
    finally:
        connection.close()
    return response.status == 200, f"{response.status} {body}"


def main(arguments: list[str]) -> int:
    """Probe the port that the environment variable `arguments[0]` holds, at the path `arguments[1]`."""
    if len(arguments) != 2:
        print("usage: python -m deploy.probe NAME_OF_PORT_VARIABLE PATH", file=sys.stderr)
        return 1
    variable, path = arguments
    port = os.environ.get(variable, "")
    if not port.isdecimal():
        print(f"{variable} must hold a port number, not {port!r}", file=sys.stderr)
        return 1
    well, answer = probe(int(port), path)
    print(answer)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
