"""Base of both Kafka brokers of the local stack: their address and their readiness."""

import abc
import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy.local.parts.ports import LOOPBACK
from deploy.local.parts.process import Process
from shared.kafka.security import client_options
from shared.runtime.settings import KafkaSettings, environment_name

BrokerKind = Literal["embedded", "apache"]


SECURITY_VARIABLES: Final = tuple(
    environment_name(KafkaSettings, field) for field in KafkaSettings.model_fields if field != "kafka_bootstrap_servers"
)
"""The variables of a connection to an external Kafka."""


def security_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options with which aiokafka clients connect like services with this environment.

    Raises:
        ValueError: the settings are inconsistent.
    """
    given: dict[str, Any] = {name: environment[name] for name in SECURITY_VARIABLES if name in environment}
    return client_options(KafkaSettings(**given))


class KafkaBroker(Process, abc.ABC):
    """One Kafka broker on loopback.

    Attributes:
        port: the port for clients; the same over restarts.
    """

    kind: ClassVar[BrokerKind]
    idempotence: ClassVar[bool]
    """Whether the broker supports the idempotent producer (`enable_idempotence=True`)."""

    port: int

    @property
    def bootstrap_servers(self) -> str:
        """The address for Kafka clients."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """The same, under the name that all parts use."""
        return self.bootstrap_servers

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_IDEMPOTENCE": "true" if self.idempotence else "false",
        }

    async def _is_ready(self) -> bool:
        return await answers(self.bootstrap_servers)


async def answers(bootstrap_servers: str) -> bool:
    """Request metadata from a broker; return whether it names a live broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=2000)
    try:
        with _quiet("aiokafka"):
            await admin.start()
            return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger temporarily: a broker that is starting refuses connections, which is not an error."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
