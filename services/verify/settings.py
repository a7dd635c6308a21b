"""What can be turned of verify."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import CommonSettings, Secret


class Settings(CommonSettings):
    """Settings of verify; environment names start with ``VERIFY_`` unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="VERIFY_")

    port: int = Field(8002, ge=1, le=65535, description="Port of /livez, /readyz, /metrics and /docs/asyncapi.")
    postgres_url: str = Field(
        "postgresql://postgres@127.0.0.1:5432/postgres",
        validation_alias="POSTGRES_URL",
        description="`postgresql://user:password@host:port/database`.",
    )
    signer_pepper: Secret = Field(
        validation_alias="SIGNER_PEPPER",
        description="Secret under which signer keys are made. The same for ingest and verify, for ever: with another"
        " one, everybody could sign again.",
    )
    max_records: int = Field(
        2000,
        ge=1,
        le=20_000,
        description="Most records of a batch, and so of one PostgreSQL transaction.",
    )
    dlq_ratio_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Consumption stops when more than this part of the last 1,000 records could not be read.",
    )
