"""What can be turned of tally."""

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
    """Settings of tally; environment names start with ``TALLY_`` unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="TALLY_")

    port: int = Field(
        8003, ge=1, le=65535, description="Port of the pages, the API, the streams and the health checks."
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias="REDIS_URL",
        description="Redis or Valkey: `redis://user:password@host:port/number`, or `rediss://…` for TLS, with the"
        " server's certificate and name checked. Authorities of your own: add `?ssl_ca_certs=<path>`; a certificate of"
        " ours: `&ssl_certfile=<path>&ssl_keyfile=<path>`.",
    )
    public_ingest_url: str = Field(
        "http://127.0.0.1:8001",
        validation_alias="PUBLIC_INGEST_URL",
        description="Where browsers reach ingest: the sign form posts there.",
    )
    public_pages_url: Annotated[str, AfterValidator(_public_url)] = Field(
        "http://127.0.0.1:8003",
        validation_alias="PUBLIC_PAGES_URL",
        description="Where browsers reach the pages: ingest sends a form on to there, and a browser follows only to where"
        " the form's page has said.",
    )
    max_records: int = Field(5000, ge=1, le=50_000, description="Most facts of a batch.")
    snapshot_interval_ms: int = Field(
        250,
        ge=50,
        description="Shortest time between two snapshots of one petition on tallies.updated, and so between two live"
        " updates. Four a second look live to a person, whatever the rate of signatures.",
    )
    audit_seconds: float = Field(
        300.0,
        ge=0,
        description="Most seconds between two audits of this instance's petitions against the ledger; 0 turns them off. A"
        " round of audits that takes little time is followed by the next one sooner, after five seconds at the earliest.",
    )
    heal: bool = Field(
        True,
        description="Whether a tally that an audit finds wrong is counted again from the ledger at once. What was found is"
        " logged first (`audit_drift`). Off: it stays as it is until `groundswell rebuild`.",
    )
    max_streams: int = Field(
        12_000, ge=1, description="Most live streams (server-sent events) that this process holds open; 503 beyond."
    )

    def exposures(self) -> list[Exposure]:
        """Also that of Redis."""
        hosts = addresses.redis_exposes_password_to(self.redis_url.get_secret_value())
        found = [Exposure("REDIS_URL", tuple(hosts), "rediss:// with the certificate checked")] if hosts else []
        return [*super().exposures(), *found]
