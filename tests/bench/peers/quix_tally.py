# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "quixstreams==3.28.1",  # an environment of its own: it needs older pydantic and confluent-kafka than Groundswell
# ]
# ///
"""Peer (d): Quix Streams' stateful count of the verified topic, by petition, with its defaults.

The state is in RocksDB with a changelog topic, committed every five seconds. Only the count is kept, not the break-downs
by country and minute, and nothing is published.

Run with the Python of this script's own environment (`tests.bench.setup.processes.quix_command`); KAFKA_BOOTSTRAP_SERVERS,
STATE_DIR.
"""

from __future__ import annotations

import os
from typing import Any

from quixstreams import Application, State  # type: ignore[import-not-found]  # not in the project's environment

GROUP = "peer-quix-tally"  # tests.bench.setup.processes has it too: this file is not imported there
TOPIC = os.environ.get("VERIFIED_TOPIC", "signatures.verified.v1")


def count(fact: dict[str, Any], state: State[str, int]) -> None:
    """Add one fact to its petition's count; the state is that of the record's key."""
    state.set("count", state.get("count", 0) + fact["delta"])


def main() -> None:
    """Count until a signal ends it."""
    app = Application(
        broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        state_dir=os.environ["STATE_DIR"],
        # The default is five seconds; a commit every second costs hardly more and can be measured sooner.
        commit_interval=1.0,
        loglevel="WARNING",
    )
    facts = app.dataframe(app.topic(TOPIC, key_deserializer="str", value_deserializer="json"))
    facts.update(count, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
