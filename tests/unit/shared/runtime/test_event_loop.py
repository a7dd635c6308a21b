"""The event loop of the services, where uvloop differs from asyncio. In a separate process: it changes a class."""

import subprocess
import sys
from textwrap import dedent

_A_SERVER_RESETS_THE_CONNECTION = """
    import asyncio, socket, struct, sys
    from shared.runtime import event_loop

    async def reset(reader, writer):
        no_lingering = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
        writer.transport.abort()

    async def main():
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.sleep(0.1)
        try:
            writer.{write}
        except ConnectionResetError:
            print("reset")
        server.close()

    event_loop.run(main())
"""


def _says(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def test_writing_to_a_connection_that_was_reset_is_a_connection_error() -> None:
    for write in ("write(b'PING')", "writelines([b'PI', b'NG'])"):
        assert _says(_A_SERVER_RESETS_THE_CONNECTION.replace("{write}", write)) == "reset"


def test_other_errors_of_a_write_stay_what_they_are() -> None:
    script = _A_SERVER_RESETS_THE_CONNECTION.replace("{write}", "write('text')").replace("await asyncio.sleep(0.1)", "")
    assert "TypeError" in _says(script)


def test_uvloop_by_itself_does_not_say_that_it_is_the_connection() -> None:
    script = _A_SERVER_RESETS_THE_CONNECTION.replace("{write}", "write(b'PING')")
    script = script.replace("from shared.runtime import event_loop", "import uvloop as event_loop")
    assert "RuntimeError" in _says(script)
