"""What each service runs, and how it ends, in the order of its parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.support.exported_metrics import put_together


def named(call: Callable[..., Any] | None) -> str | None:
    while isinstance(call, partial):
        call = call.func
    return None if call is None else call.__qualname__


ORDER = {
    "ingest": {
        "run": [
            "Database.open",
            "EventProducer.start_when_reachable",
            "CatalogueFeed.look_until_complete",
            "Clock.watch",
            "Clock.ask",
            "AdminUpkeep.run",
            "GroupLag.run",
        ],
        "stop": [],
        "finish": [],
        "close": ["Database.close", "EventProducer.stop"],
    },
    "verify": {
        "run": ["Database.open", "EventProducer.start_when_reachable"],
        "stop": ["BatchConsumer.drain"],
        "finish": [],
        "close": ["Database.close", "EventProducer.stop"],
    },
    "tally": {
        "run": [
            "Database.open",
            "EventProducer.start_when_reachable",
            "Watch.run",
            "SnapshotAnnouncer.run",
            "AuditLoop.run",
            "GroupLag.run",
        ],
        "stop": ["BatchConsumer.drain", "LiveHub.close"],
        "finish": [],
        # Read backwards: the last snapshots are published before the producer and Redis are closed.
        "close": ["Database.close", "Redis.aclose", "EventProducer.stop", "_flush"],
    },
    "notify": {
        "run": ["Database.open", "EventProducer.start_when_reachable", "Sender.run", "Upkeep.run"],
        "stop": ["BatchConsumer.drain", "Sender.stop"],
        "finish": ["Sender.ended"],
        "close": ["Database.close", "EventProducer.stop"],
    },
}


@pytest.mark.parametrize("service", list(ORDER))
def test_every_part_is_in_its_place(service: str) -> None:
    parts = put_together(service).parts
    order = {step: [name for part in parts if (name := named(getattr(part, step)))] for step in ORDER[service]}
    assert order == ORDER[service]
