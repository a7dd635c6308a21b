"""Settings of ingest."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import limits
from pydantic import (
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from services.ingest.access.credentials import AdminTokens, ApiKeys, Credential, NamedSecrets, parse, require_unique
from services.ingest.web.clients import parse_networks
from shared.runtime.settings import PostgresSettings, Secret, SignerSettings, unset_when_empty


class Settings(PostgresSettings, SignerSettings):
    """Settings of ingest; environment names start with ``INGEST_`` unless stated otherwise."""

    model_config = SettingsConfigDict(env_prefix="INGEST_")

    port: int = Field(
        8001, ge=1, le=65535, description="Port of the API, /livez, /readyz, /metrics and /docs/asyncapi."
    )
    admin_tokens: AdminTokens = Field(
        NamedSecrets(""),
        validation_alias="ADMIN_TOKENS",
        description="Bearer tokens of administrators, who may read and change whole petitions, and invalidate and erase"
        " signatures: `name:secret`, comma separated. The name is a slug and appears in the audit log"
        " (`groundswell admin-events`); the secret has at least 16 characters. `name@org1+org2:secret` is limited to the"
        " petitions of these organisations. Either this or `ADMIN_TOKEN` is required.",
    )
    admin_token: Annotated[Secret | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validate_default=True,
        validation_alias="ADMIN_TOKEN",
        description="The secret of one more administrator, named `admin` and not limited to any organisation.",
    )
    api_keys: ApiKeys = Field(
        NamedSecrets(""),
        validation_alias="API_KEYS",
        description="API keys of partners, who may send batches, and confirm and withdraw signatures; same format as"
        " `ADMIN_TOKENS`. Calls with a key are not rate limited. A key without a name is named by its place in the list:"
        " `key-1`. Empty: no partners.",
    )
    public_pages_url: str = Field(
        "http://127.0.0.1:8003",
        validation_alias="PUBLIC_PAGES_URL",
        description="Base URL at which browsers reach the pages (tally). After signing, the form is redirected to the"
        " thank-you page there.",
    )
    client_rate: str = Field(
        "120/minute",
        description="Rate limit of one client address, for signatures and separately for status requests; `off`: no limit."
        " IPv6 addresses are limited by /64 network.",
    )
    wrong_credentials_rate: str = Field(
        "10/minute",
        description="Rate limit of wrong tokens and API keys from one client address; `off`: no limit. Beyond it, a"
        " credential that has not succeeded from this address within the last day is answered with 429 unchecked, even if"
        " it is right: its client waits until the guessing from the same address stops, and at most one period of the"
        " rate (a minute) longer.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of the reverse proxies in front, comma separated: `10.0.3.0/24, 2001:db8::7`."
        " Only they are trusted to name a client's address. List them all: clients behind an unlisted proxy count as one"
        " client. Empty: the connecting address is the client's.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for",
        description="The header in which these proxies name the client: `x-forwarded-for`, or `forwarded` (RFC 7239)."
        " They must append to it or replace it; the other header is ignored.",
    )
    max_in_flight: int = Field(
        2_000,
        ge=1,
        description="Most requests in progress at once. Further ones are refused with 503: at the throughput of one"
        " process, the default is about a third of a second of waiting, and clients that wait longer retry anyway. The"
        " refusal is delayed by a second, so that clients that retry at once do not keep the process busy.",
    )
    max_batches: int = Field(
        4, ge=1, description="Most batches in progress at once. Each may hold 4 MiB, so this bounds their memory."
    )
    clock_tolerance_seconds: float = Field(
        60,
        ge=1,
        le=3_600,
        description="Most seconds that this machine's clock may differ from PostgreSQL's and Kafka's. Beyond that, nothing"
        " is accepted (503 `clock_wrong`), and `/readyz` reports it, until the clock is right again.",
    )
    cors_origins: str = Field(
        "",
        description="Origins, comma separated, whose scripts may sign and query a status from the browser (CORS). Empty:"
        " none; the form on the pages needs none.",
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

    @field_validator("public_pages_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        TypeAdapter(AnyHttpUrl).validate_python(url)
        return url.rstrip("/")

    @field_validator("admin_token")
    @classmethod
    def _somebody_administers(cls, token: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        tokens = others.data.get("admin_tokens")  # missing if it failed its own validation
        if token is None and tokens is not None and not parse(tokens.get_secret_value()):
            raise ValueError(
                "is not set, and ADMIN_TOKENS (name:secret, comma separated) is not either: nobody could administer"
            )
        return token

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        try:
            require_unique([*self.administrators(), *self.partners()])
        except ValueError as error:
            raise ValueError(f"ADMIN_TOKENS, ADMIN_TOKEN (named admin) and API_KEYS: {error}") from None
        return self

    def administrators(self) -> list[Credential]:
        """The tokens of administrators."""
        tokens = parse(self.admin_tokens.get_secret_value())
        if self.admin_token is not None:
            tokens.append(Credential("admin", None, self.admin_token.get_secret_value()))
        return tokens

    def partners(self) -> list[Credential]:
        """The keys of partners."""
        return parse(self.api_keys.get_secret_value(), unnamed="key")


def split(text: str) -> list[str]:
    """The parts of a comma-separated setting, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]
