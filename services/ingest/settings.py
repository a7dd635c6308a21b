"""What can be turned of ingest."""

from __future__ import annotations

from typing import Literal

import limits
from pydantic import AnyHttpUrl, Field, SecretStr, TypeAdapter, field_validator
from pydantic_settings import SettingsConfigDict

from services.ingest.clients import parse_networks
from shared.settings import PostgresSettings, Secret, SignerSettings

_LEAST_KEY_LENGTH = 16


class Settings(PostgresSettings, SignerSettings):
    """Settings of ingest; environment names start with ``INGEST_`` unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="INGEST_")

    port: int = Field(
        8001, ge=1, le=65535, description="Port of the API, /livez, /readyz, /metrics and /docs/asyncapi."
    )
    admin_token: Secret = Field(
        validation_alias="ADMIN_TOKEN",
        description="Bearer token of those who may change petitions, and invalidate and erase signatures.",
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        validation_alias="API_KEYS",
        description="Keys of partners who may send batches and confirm signatures, comma separated, at least 16"
        " characters each. Calls with a key are not rate limited. Empty: no partners.",
    )
    public_pages_url: str = Field(
        "http://127.0.0.1:8003",
        validation_alias="PUBLIC_PAGES_URL",
        description="Where browsers reach the pages (tally). A signed form is sent on to its thank-you page there.",
    )
    client_rate: str = Field(
        "120/minute",
        description="Signatures, and separately status questions, that one client address may send; `off`: no limit."
        " IPv6 addresses count by their /64 network.",
    )
    wrong_credentials_rate: str = Field(
        "10/minute",
        description="Wrong tokens and API keys that one client address may send; `off`: no limit. Beyond it, credentials"
        " that were not right from this address within a day are answered with 429 unseen, right ones too: such a client"
        " waits until the guessing beside it has ended, and at most a minute (the rate's period) longer.",
    )
    trusted_proxies: str = Field(
        "",
        description="Reverse proxies in front, addresses or networks, comma separated: `10.0.3.0/24, 2001:db8::7`. Only"
        " they are believed when they name a client's address; list them all, or all clients behind one are one client."
        " Empty: whoever connects is the client.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for",
        description="The header in which these proxies name the client: `x-forwarded-for`, or `forwarded` (RFC 7239)."
        " They must add to it, or replace it; the other one is not looked at.",
    )
    max_in_flight: int = Field(
        2_000,
        ge=1,
        description="Requests in work at once. One more is refused with 503: at the rate of one process, these are about"
        " a third of a second of waiting, and whoever waits longer tries again anyway. The refusal goes out a second"
        " later, so that whoever tries again at once does not keep the process busy.",
    )
    max_batches: int = Field(
        4, ge=1, description="Batches in work at once. Each may hold 4 MiB, so this bounds the memory they take."
    )
    clock_tolerance_seconds: float = Field(
        60,
        ge=1,
        le=3_600,
        description="Seconds that this machine's clock may differ from PostgreSQL's and Kafka's. Beyond, nothing is"
        " accepted (503 `clock_wrong`) and `/readyz` says so, until it is right again.",
    )
    cors_origins: str = Field(
        "",
        description="Origins, comma separated, whose scripts may sign and ask for a status from the browser. Empty:"
        " none; the pages' own form needs none.",
    )

    @field_validator("client_rate", "wrong_credentials_rate")
    @classmethod
    def _parses(cls, rate: str) -> str:
        if rate == "off":
            return rate
        try:
            limits.parse(rate)
        except ValueError:
            raise ValueError("must read like 120/minute or 10/second, or be off") from None
        return rate

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: str) -> str:
        parse_networks(proxies)
        return proxies

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, keys: SecretStr) -> SecretStr:
        if any(len(key) < _LEAST_KEY_LENGTH for key in split(keys.get_secret_value())):
            raise ValueError("every key must have at least 16 characters; make one with: openssl rand -hex 32")
        return keys

    @field_validator("public_pages_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        TypeAdapter(AnyHttpUrl).validate_python(url)
        return url.rstrip("/")


def split(text: str) -> list[str]:
    """The parts of a comma-separated setting, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]
