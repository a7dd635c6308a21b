"""What can be turned of ingest."""

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
    """Settings of ingest; environment names start with ``INGEST_`` unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="INGEST_")

    port: int = Field(
        8001, ge=1, le=65535, description="Port of the API, /livez, /readyz, /metrics and /docs/asyncapi."
    )
    admin_tokens: AdminTokens = Field(
        NamedSecrets(""),
        validation_alias="ADMIN_TOKENS",
        description="Bearer tokens of those who may see all of a petition and change it, and invalidate and erase"
        " signatures: `name:secret`, comma separated. The name is a slug and stands in the audit log"
        " (`groundswell admin-events`); the secret has at least 16 characters. `name@org1+org2:secret` is bound to the"
        " petitions of these organisations. One of this and `ADMIN_TOKEN` is required.",
    )
    admin_token: Annotated[Secret | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validate_default=True,
        validation_alias="ADMIN_TOKEN",
        description="The secret of one more administrator, named `admin` and bound to no organisation.",
    )
    api_keys: ApiKeys = Field(
        NamedSecrets(""),
        validation_alias="API_KEYS",
        description="Keys of partners who may send batches and confirm and withdraw signatures, written as `ADMIN_TOKENS`"
        " are. Calls with a key are not rate limited. A key without a name is named by its place, `key-1`. Empty: no"
        " partners.",
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

    @field_validator("public_pages_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        TypeAdapter(AnyHttpUrl).validate_python(url)
        return url.rstrip("/")

    @field_validator("admin_token")
    @classmethod
    def _somebody_administers(cls, token: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        tokens = others.data.get("admin_tokens")  # not there when it is wrong itself
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
