"""How the peers and floors without HTTP are started."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from deploy.local import PROJECT_ROOT
from deploy.local.parts.children import run_to_end
from deploy.local.parts.process import PartFailed
from tests.bench.measuring.progress import TALLY, VERIFY, Reader
from tests.bench.setup.arena import Arena, Command

FASTSTREAM_VERIFY: Final = Reader("peer-faststream-verify", VERIFY.topic)
FASTSTREAM_TALLY: Final = Reader("peer-faststream-tally", TALLY.topic)
QUIX_TALLY: Final = Reader("peer-quix-tally", TALLY.topic)
CONSUME_FLOOR: Final = Reader("floor-kafka-consume", TALLY.topic)

_UV: Final = PROJECT_ROOT / ".tools" / "uv" / "bin" / "uv"
_QUIX: Final = PROJECT_ROOT / "tests" / "bench" / "peers" / "quix_tally.py"


async def faststream(arena: Arena, what: str) -> Command:
    """Peer (c) as ``verify`` or ``tally``."""
    return await arena.process(
        f"faststream-{what}", [sys.executable, "-m", "tests.bench.peers.faststream_single", what]
    )


async def quix(arena: Arena) -> Command:
    """Peer (d), in its own environment: it needs older versions of what Groundswell uses.

    Raises:
        PartFailed: the environment could not be made.
    """
    script: list[str | Path] = ["--script", _QUIX]
    code, output = await run_to_end([_UV, "sync", "--quiet", "--locked", *script, "--python", sys.executable])
    if code != 0:
        raise PartFailed(f"the environment of {_QUIX.name} could not be made:\n{output}")
    code, output = await run_to_end([_UV, "python", "find", *script])
    if code != 0:
        raise PartFailed(f"the environment of {_QUIX.name} was not found:\n{output}")
    state_dir = arena.state_dir / "data" / "quix"
    shutil.rmtree(state_dir, ignore_errors=True)  # left by an earlier round, whose topics are deleted
    return await arena.process("quix-tally", [output.splitlines()[-1], _QUIX], environ={"STATE_DIR": str(state_dir)})


async def consume_floor(arena: Arena) -> Command:
    """The floor of every consumer, on the verified topic."""
    return await arena.process(
        "consume-floor", [sys.executable, "-m", "tests.bench.floors.kafka_consume"], environ={"TOPIC": TALLY.topic}
    )


async def insert_floor(arena: Arena, rows: int) -> dict[str, Any]:
    """Run the floor of PostgreSQL's inserts to its end; returns what it printed.

    Raises:
        PartFailed: it failed.
    """
    command = [sys.executable, "-m", "tests.bench.floors.postgres_insert", str(rows)]
    process = await arena.process("insert-floor", command)
    await process.wait()
    said = process.log_tail()
    if process.exit_code != 0:
        raise PartFailed(process.describe_end())
    await arena.stop_one(process)
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result
