"""Free TCP ports on loopback that stay free while their server is down."""

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the ephemeral ranges of Linux and macOS (from 32768 and 49152): a server that is killed and restarted needs its port
# again, and an ephemeral one could have been assigned to an outgoing connection meanwhile.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens.

    Chosen at random, so that stacks and test runs that start at the same moment do not collide.

    Raises:
        RuntimeError: no free port was found in `_TRIES` tries.
    """
    for port in random.sample(range(_FIRST, _LAST), _TRIES):
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free TCP port on {LOOPBACK} among {_TRIES} tries between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: old connections in TIME_WAIT must not make a free port look used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


# Ports that this process has assigned, whose servers may not have been started yet.
_given: set[int] = set()
