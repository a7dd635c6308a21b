"""Why something cannot be reached, in words that may be shown.

Drivers quote values in their messages, so those are shown nowhere. A certificate that is not accepted and a login that is
refused are what somebody has to mend; they are told apart from everything that ends by itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import asyncpg
import redis.exceptions
from aiokafka.errors import (
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

_LOGIN_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # also "no pg_hba.conf entry": not from here, or not unencrypted
    redis.exceptions.AuthenticationError,
    SaslAuthenticationFailed,
)


def why(error: BaseException) -> str:
    """What is wrong, in a few words: the error's type where nothing better is known."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not accepted: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError):
            return _tls(cause)
        if isinstance(cause, _LOGIN_REFUSED):
            return "the login is refused"
        if isinstance(cause, UnsupportedSaslMechanismError):
            return "KAFKA_SASL_MECHANISM is not one that the brokers offer"
        if isinstance(cause, IllegalSaslStateError):
            return "the brokers take no login here; is KAFKA_SECURITY_PROTOCOL what this listener speaks?"
    return type(error).__name__


def _tls(error: ssl.SSLError) -> str:
    reason = error.reason or type(error).__name__
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return f"the server wants a certificate of ours, or does not accept it: {reason}"
    return f"TLS fails: {reason}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
