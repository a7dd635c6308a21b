"""Classifies the errors of aiokafka; see `shared.runtime.failures`."""

from __future__ import annotations

from typing import Final

from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from shared.runtime.failures import DriverErrors


def _is_transient(error: BaseException) -> bool:
    if not isinstance(error, KafkaError):
        return False
    return bool(error.retriable) or isinstance(error, KafkaTimeoutError) or _connection_lost(error)


def _connection_lost(error: KafkaError) -> bool:
    return "closed" in str(error).lower() or "connection" in type(error).__name__.lower()


def _why(error: BaseException) -> str | None:
    if isinstance(error, SaslAuthenticationFailed):
        return "the login is refused"
    if isinstance(error, UnsupportedSaslMechanismError):
        return "KAFKA_SASL_MECHANISM is not one that the brokers offer"
    if isinstance(error, IllegalSaslStateError):
        return "the brokers take no login here; is KAFKA_SECURITY_PROTOCOL what this listener speaks?"
    return None


ERRORS: Final = DriverErrors(is_transient=_is_transient, why=_why)
