"""Settings of verify."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.runtime.settings import ConsumerSettings, PostgresSettings, SignerSettings


class Settings(PostgresSettings, SignerSettings, ConsumerSettings):
    """Settings of verify; environment names start with ``VERIFY_`` unless stated otherwise."""

    model_config = SettingsConfigDict(env_prefix="VERIFY_")

    port: int = Field(8002, ge=1, le=65535, description="Port of /livez, /readyz, /metrics and /docs/asyncapi.")
    max_records: int = Field(
        2000,
        ge=1,
        le=20_000,
        description="Most records of a batch, and so of one PostgreSQL transaction.",
    )
