"""Emptying a broker between two rounds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from shared.contract.topics import all_topics

_GONE_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 0.1
_UNKNOWN: Final = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND}


def empty_kafka(bootstrap_servers: str) -> None:
    """Delete all groups and topics, until the broker lists none. Blocks.

    A broker lists topics and groups with a delay after their creation, and some even after their deletion. So this repeats
    until nothing is left, and deletes Groundswell's topics whether they are listed or not.

    Raises:
        TimeoutError: after a minute the broker still lists some.
        confluent_kafka.KafkaException: the broker does not answer, or refuses for another reason.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    _empty_groups(admin)
    _empty_topics(admin)


def _empty_groups(admin: AdminClient) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        listed = admin.list_consumer_groups().result(timeout=_GONE_SECONDS)
        groups = [group.group_id for group in listed.valid]
        if not groups and not listed.errors:
            return
        failed: Exception | None = listed.errors[0] if listed.errors else None
        try:
            if groups:
                _delete(admin.delete_consumer_groups(groups).values())
        except KafkaException as error:
            failed = error  # a killed member leaves the group only when its session has expired
        if time.monotonic() > deadline:
            raise TimeoutError(f"Kafka did not delete its groups; it still names {', '.join(groups)}") from failed
        time.sleep(_AGAIN_SECONDS)


def _empty_topics(admin: AdminClient) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    left = {topic.name for topic in all_topics()} | _named(admin)
    while left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Kafka did not delete its topics; it still names {', '.join(sorted(left))}")
        _delete(admin.delete_topics(sorted(left), operation_timeout=_GONE_SECONDS).values())
        if left := _named(admin):
            time.sleep(_AGAIN_SECONDS)


def _named(admin: AdminClient) -> set[str]:
    return {name for name in admin.list_topics(timeout=_GONE_SECONDS).topics if not name.startswith("__")}


def _delete(asked: Iterable[object]) -> None:
    """Wait for the answers. A missing topic or group counts as deleted."""
    for answer in asked:
        try:
            answer.result(timeout=_GONE_SECONDS)  # type: ignore[attr-defined]
        except KafkaException as error:
            if error.args[0].code() not in _UNKNOWN:
                raise
