"""Settings of tally."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr, TypeAdapter
from pydantic_settings import SettingsConfigDict

from shared.runtime import addresses
from shared.runtime.settings import ConsumerSettings, Exposure, PostgresSettings


def _redis_url(url: SecretStr) -> SecretStr:
    addresses.require_redis_url(url.get_secret_value())
    return url


def _public_url(url: str) -> str:
    TypeAdapter(AnyHttpUrl).validate_python(url)
    return url.rstrip("/")


class Settings(PostgresSettings, ConsumerSettings):
    """Settings of tally; environment names start with ``TALLY_`` unless stated otherwise."""

    model_config = SettingsConfigDict(env_prefix="TALLY_")

    port: int = Field(
        8003, ge=1, le=65535, description="Port of the pages, the API, the streams and the health checks."
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias="REDIS_URL",
        description="Redis or Valkey: `redis://user:password@host:port/number`, or `rediss://…` for TLS, with the"
        " server's certificate and name checked. For your own authorities, add `?ssl_ca_certs=<path>`; for a client"
        " certificate, `&ssl_certfile=<path>&ssl_keyfile=<path>`.",
    )
    public_ingest_url: str = Field(
        "http://127.0.0.1:8001",
        validation_alias="PUBLIC_INGEST_URL",
        description="Base URL at which browsers reach ingest; the sign form posts there.",
    )
    public_pages_url: Annotated[str, AfterValidator(_public_url)] = Field(
        "http://127.0.0.1:8003",
        validation_alias="PUBLIC_PAGES_URL",
        description="Base URL at which browsers reach the pages. ingest redirects a signed form there, and a browser"
        " follows only to the origin that the form's page has allowed (CSP).",
    )
    max_records: int = Field(5000, ge=1, le=50_000, description="Most facts of a batch.")
    snapshot_interval_ms: int = Field(
        250,
        ge=50,
        description="Least milliseconds between two snapshots of one petition on tallies.updated, and so between two live"
        " updates. Four a second look live to a person, at any rate of signatures.",
    )
    audit_seconds: float = Field(
        300.0,
        ge=0,
        description="Most seconds between two audits of this instance's petitions against the ledger; 0 turns audits off."
        " After a short round the next one starts sooner, but not within five seconds.",
    )
    heal: bool = Field(
        True,
        description="Whether a tally that an audit finds wrong is rebuilt from the ledger at once. The finding is logged"
        " first (`audit_drift`). Off: the tally stays as it is until `groundswell rebuild`.",
    )
    max_streams: int = Field(
        12_000, ge=1, description="Most live streams (server-sent events) open in this process; further ones get 503."
    )

    def exposures(self) -> list[Exposure]:
        """The inherited ones, and Redis's."""
        hosts = addresses.redis_exposes_password_to(self.redis_url.get_secret_value())
        found = [Exposure("REDIS_URL", tuple(hosts), "rediss:// with the certificate checked")] if hosts else []
        return [*super().exposures(), *found]
