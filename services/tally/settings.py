"""What can be turned of tally."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import CommonSettings


class Settings(CommonSettings):
    """Settings of tally; environment names start with ``TALLY_`` unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="TALLY_")

    port: int = Field(
        8003, ge=1, le=65535, description="Port of the pages, the API, the streams and the health checks."
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias="REDIS_URL",
        description="`redis://` or `rediss://` address of Redis or Valkey.",
    )
    postgres_url: str = Field(
        "postgresql://postgres@127.0.0.1:5432/postgres",
        validation_alias="POSTGRES_URL",
        description="`postgresql://user:password@host:port/database`.",
    )
    public_ingest_url: str = Field(
        "http://127.0.0.1:8001",
        validation_alias="PUBLIC_INGEST_URL",
        description="Where browsers reach ingest: the sign form posts there.",
    )
    max_records: int = Field(5000, ge=1, le=50_000, description="Most facts of a batch.")
    dlq_ratio_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Consumption stops when more than this part of the last 1,000 records could not be read.",
    )
    snapshot_interval_ms: int = Field(
        250,
        ge=50,
        description="Shortest time between two snapshots of one petition on tallies.updated, and so between two live"
        " updates. Four a second look live to a person, whatever the rate of signatures.",
    )
    audit_seconds: float = Field(
        300.0,
        ge=0,
        description="Seconds between audits of this instance's petitions against the ledger; 0 turns them off.",
    )
    max_streams: int = Field(
        12_000, ge=1, description="Most live streams (server-sent events) that this process holds open; 503 beyond."
    )
