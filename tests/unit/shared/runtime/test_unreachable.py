"""Why something cannot be reached: the kind of trouble, and nothing that a driver quotes."""

from __future__ import annotations

import ssl

import asyncpg
import pytest
import redis.exceptions
from aiokafka.errors import IllegalSaslStateError, KafkaConnectionError, SaslAuthenticationFailed

from shared.runtime.unreachable import why


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "certificate has expired"
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError()
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (untrusted(), "the certificate is not accepted: certificate has expired"),
        (tls("WRONG_VERSION_NUMBER"), "TLS fails: WRONG_VERSION_NUMBER"),
        (
            tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            "the server wants a certificate of ours, or does not accept it: TLSV13_ALERT_CERTIFICATE_REQUIRED",
        ),
        (asyncpg.InvalidPasswordError('password authentication failed for user "hunter2"'), "the login is refused"),
        (redis.exceptions.AuthenticationError("hunter2"), "the login is refused"),
        (SaslAuthenticationFailed("hunter2"), "the login is refused"),
        (
            IllegalSaslStateError("hunter2"),
            "the brokers take no login here; is KAFKA_SECURITY_PROTOCOL what this listener speaks?",
        ),
        (ConnectionRefusedError("hunter2"), "ConnectionRefusedError"),
    ],
)
def test_what_is_wrong_is_said_whatever_it_is_wrapped_in(error: Exception, said: str) -> None:
    assert why(error) == said
    if said == type(error).__name__:
        return
    outer = KafkaConnectionError("hunter2")
    outer.__context__ = error  # redis-py raises within `except`, without `from`
    assert why(outer) == said
