"""Connection options of all Kafka clients: encryption and authentication, from the settings."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from shared.runtime.settings import KafkaSettings
from shared.runtime.tls import client_context
from shared.runtime.unreachable import why

_PROBE_SECONDS: Final = 3.0


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments of an aiokafka client's connection, except ``bootstrap_servers``."""
    options: dict[str, Any] = {
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": _context(settings),
    }
    if settings.kafka_logs_in:
        assert settings.kafka_sasl_password is not None
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return options


def broker_security(settings: KafkaSettings) -> BaseSecurity | None:
    """Return the same for a FastStream broker. None: no encryption and no login."""
    context = _context(settings)
    if not settings.kafka_logs_in:
        return None if context is None else BaseSecurity(ssl_context=context)
    user, password = settings.kafka_sasl_username, settings.kafka_sasl_password
    assert user is not None
    assert password is not None
    kind = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kind[settings.kafka_sasl_mechanism or "PLAIN"](
        username=user, password=password.get_secret_value(), ssl_context=context
    )


async def why_unreachable(settings: KafkaSettings) -> str | None:
    """Return why no broker can be used, or None if one can be used now.

    aiokafka writes the reason to its log and raises only that there is no connection. So each broker is tried once more,
    through all steps that can fail: name resolution, TCP, TLS, login, first request.
    """
    reasons = await asyncio.gather(
        *(_why(settings, host, port) for host, port, _ in collect_hosts(settings.kafka_bootstrap_servers))
    )
    if None in reasons:
        return None
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason is not None))


async def _why(settings: KafkaSettings, host: str, port: int) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            connection = await create_conn(
                host, port, request_timeout_ms=int(_PROBE_SECONDS * 1000), **client_options(settings)
            )
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except TimeoutError:
        return f"no answer within {_PROBE_SECONDS:g} s"
    except KafkaConnectionError as error:  # after TCP was connected; before that it would be an OSError
        told = why(error)
        ended = "the broker ends the connection; is KAFKA_SECURITY_PROTOCOL what this listener speaks?"
        return ended if told == type(error).__name__ else told
    except (OSError, KafkaError) as error:
        return why(error)
    return None


def _context(settings: KafkaSettings) -> ssl.SSLContext | None:
    if not settings.kafka_encrypts:
        return None
    key = settings.kafka_ssl_key
    return client_context(
        authorities=settings.kafka_ssl_ca,
        certificate=settings.kafka_ssl_certificate,
        key=None if key is None else key.get_secret_value(),
    )
