"""Creates and corrects the topics of `shared.contract.topics` on the brokers, in one idempotent step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, TopicAlreadyExistsError, for_code

from shared.contract.topics import DEFAULT_PARTITIONS, SIGNATURES_SUBMITTED, Topic, all_topics


async def apply_topics(
    bootstrap_servers: str,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    replication_factor: int = 1,
    security: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Create missing topics, and correct their configuration where it differs. Idempotent.

    Partitions are only added, and never to a topic keyed by petition: its order per petition would break.

    Args:
        bootstrap_servers: Brokers, ``host:port``, comma separated.
        partitions: Number of partitions of new topics, and minimum for ``signatures.submitted``.
        replication_factor: Replicas of each partition of new topics.
        security: Connection options, from `shared.kafka.security.client_options`; None: no encryption, no login.

    Returns:
        The result per topic: ``created``, ``updated``, ``unchanged``, or ``differs: `` and what this broker cannot
        change (the embedded one can only create).

    Raises:
        aiokafka.errors.KafkaError: the broker refused; the message says which topic and why.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **(security or {}))
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        done: dict[str, str] = {}
        for topic in all_topics():
            if topic.name in existing:
                done[topic.name] = await _update(admin, topic, partitions)
            else:
                done[topic.name] = await _create(admin, topic, partitions, replication_factor)
        return done
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, topic: Topic, partitions: int, replication_factor: int) -> str:
    new = NewTopic(topic.name, partitions, replication_factor, topic_configs=topic.config())
    response = await admin.create_topics([new])
    for _, code, *message in response.topic_errors:  # type: ignore[attr-defined]
        if code == TopicAlreadyExistsError.errno:
            return "unchanged"  # someone else ran this step at the same moment
        if code:
            raise for_code(code)(f"{topic.name}: {' '.join(str(part) for part in message)}")
    return "created"


async def _update(admin: AIOKafkaAdminClient, topic: Topic, partitions: int) -> str:
    described = await admin.describe_topics([topic.name])
    have = len(described[0]["partitions"])
    too_few = topic is SIGNATURES_SUBMITTED and have < partitions
    current, overrides = await _current_config(admin, topic)
    wanted = topic.config()
    different = [name for name, value in wanted.items() if current and current.get(name) != value]
    try:
        if too_few:
            await admin.create_partitions({topic.name: NewPartitions(partitions)})
        if different:
            # This call replaces the topic's whole configuration, so it includes what an operator has set besides.
            await _set_config(admin, topic, {**overrides, **wanted})
    except IncompatibleBrokerVersion:
        wrong = [f"{have} partitions, not {partitions}"] if too_few else []
        wrong += [f"{name} is {current.get(name)}, not {wanted[name]}" for name in different]
        return f"differs: {', '.join(wrong)}; this broker cannot change it"
    return "updated" if too_few or different else "unchanged"


_SET_FOR_THE_TOPIC: Final = 1
"""The config_source of a value that is set on the topic itself (DescribeConfigs, version 1 and above)."""


async def _current_config(admin: AIOKafkaAdminClient, topic: Topic) -> tuple[dict[str, str], dict[str, str]]:
    """Return the topic's effective configuration, and the part of it that is set on the topic itself."""
    current: dict[str, str] = {}
    overrides: dict[str, str] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name)]):
        for code, message, _kind, _name, entries in response.resources:  # type: ignore[attr-defined]
            if code:
                raise for_code(code)(f"{topic.name}: {message}")
            for name, value, _read_only, source, *_ in entries:
                current[name] = value
                if source == _SET_FOR_THE_TOPIC and value is not None:
                    overrides[name] = value
    return current, overrides


async def _set_config(admin: AIOKafkaAdminClient, topic: Topic, config: dict[str, str]) -> None:
    for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=config)]):
        for code, message, *_ in response.resources:  # type: ignore[attr-defined]
            if code:
                raise for_code(code)(f"{topic.name}: {message}")
