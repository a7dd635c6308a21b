"""Creates tables and topics of a stack whose parts are running."""

from collections.abc import Mapping

import asyncpg
from aiokafka.errors import KafkaError

from deploy.local.parts.kafka import security_of
from deploy.local.parts.process import PartFailed
from deploy.migrations import migrate
from shared.kafka.apply_topics import apply_topics


async def make_tables(postgres_url: str) -> None:
    """Apply pending migrations.

    Raises:
        PartFailed: PostgreSQL does not answer, or refuses.
    """
    try:
        await migrate(postgres_url)
    except (OSError, asyncpg.PostgresError) as error:
        raise PartFailed(f"the tables could not be made in Postgres: {error!r}") from error


async def make_topics(environment: Mapping[str, str]) -> None:
    """Create and configure the topics on the Kafka that services with this environment use.

    Raises:
        PartFailed: Kafka does not answer, or refuses.
    """
    bootstrap_servers = environment["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        await apply_topics(bootstrap_servers, security=security_of(environment))
    except (OSError, KafkaError, ValueError) as error:
        raise PartFailed(f"the topics could not be made on Kafka at {bootstrap_servers}: {error!r}") from error
