"""Impossible states, written by hand on real parts, and the recovery of the spoiled petition.

Every act spoils its own petition (`victim.Victim`): rows deleted, edited and duplicated, keys and fields of Redis deleted,
retyped and set wrong, records foreign, forged, stale and unreadable. The requirements are the same for all: honest signatures
of other petitions are counted meanwhile; the spoiled petition gets the ledger's count again by itself; nothing forged is
mailed; what was set aside is reported.

`tests.faults.catalogue.impossible` plays the acts in the surges of a fault run, `test_impossible_machine` between steps of
real traffic, two at a time, and ``python -m tests.faults.impossible`` one after the other, or every pair.
"""

from __future__ import annotations

from typing import Final

from tests.faults.impossible import by_kafka, by_postgres, by_redis
from tests.faults.impossible.act import Act


def acts() -> dict[str, Act]:
    """Every act by its name.

    Raises:
        ValueError: two acts have the same name.
    """
    found: dict[str, Act] = {}
    for act in (*by_postgres.ACTS, *by_redis.ACTS, *by_kafka.ACTS):
        if act.name in found:
            raise ValueError(f"two acts are called {act.name}")
        found[act.name] = act
    return found


_UNREADABLE_HEADER: Final = "-unreadable-header"


def observed_acts() -> dict[str, Act]:
    """The acts that may be played while the observers of a world read the topics.

    They read with librdkafka, whose Python binding (confluent-kafka 2.16.1) ends with a segmentation fault on a header whose
    name is not UTF-8. ``python -m tests.faults.impossible`` plays the other acts, without observers.
    """
    return {name: act for name, act in acts().items() if not name.endswith(_UNREADABLE_HEADER)}
