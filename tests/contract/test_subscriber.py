"""The subscriber of the README runs as it is written there, as a program of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.integration.system import System

README = Path(__file__).resolve().parents[2] / "README.md"


def subscriber() -> str:
    """The code after the marker."""
    (code,) = re.findall(
        r"^<!-- subscriber: run by the tests -->\n```python\n(.*?)^```",
        README.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    return str(code)


async def test_the_subscriber_of_the_readme_follows_the_counts(system: System, tmp_path: Path) -> None:
    program = tmp_path / "subscriber.py"
    program.write_text(subscriber(), encoding="utf-8")
    await system.start_petition("read-me")
    await system.surge("read-me", range(3))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        cwd=tmp_path,
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": system.stack.environment["KAFKA_BOOTSTRAP_SERVERS"]},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await until_it_prints("read-me 3 revision 3", process.stdout)
            await system.surge("read-me", range(3, 5))
            await until_it_prints("read-me 5 revision 5", process.stdout)
    finally:
        process.kill()
        await process.wait()


async def until_it_prints(wanted: str, output: asyncio.StreamReader) -> None:
    async for line in output:
        if line.decode().rstrip() == wanted:
            return
    raise AssertionError("the subscriber has ended")
