"""Floor of verify's PostgreSQL: rows with two unique keys, inserted in batches, one transaction each.

Run with ``python -m tests.bench.floors.postgres_insert ROWS``; POSTGRES_URL. Prints one JSON object: rows, seconds, and the
CPU seconds of this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from uuid import UUID

import asyncpg
import uvloop

_BATCH = 2_000

_SCHEMA = """
DROP TABLE IF EXISTS floor_signatures;
CREATE TABLE floor_signatures (
    signature_id uuid NOT NULL PRIMARY KEY,
    signer_key   uuid NOT NULL UNIQUE,
    petition_id  text NOT NULL
);
"""

_INSERT = """
INSERT INTO floor_signatures SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[]) ON CONFLICT DO NOTHING
"""


async def main(rows: int) -> None:
    """Insert `rows` rows: ids rise with time, signer keys have no order."""
    connection = await asyncpg.connect(os.environ["POSTGRES_URL"])
    await connection.execute(_SCHEMA)
    wall, cpu = time.perf_counter(), time.process_time()
    for first in range(0, rows, _BATCH):
        numbers = range(first, min(first + _BATCH, rows))
        await connection.execute(
            _INSERT,
            [UUID(int=number) for number in numbers],
            [UUID(bytes=os.urandom(16)) for _ in numbers],
            ["one"] * len(numbers),
        )
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    await connection.execute("DROP TABLE floor_signatures")
    await connection.close()
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds}))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
