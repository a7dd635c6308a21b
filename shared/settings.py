"""Settings that every service has, and how settings are read.

Values come from the environment; any of them may instead come from a file named by ``<NAME>_FILE`` (how containers and
orchestrators hand over secrets). Settings are frozen: what was checked at start is what runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


def environment_name(settings: type[BaseSettings], field: str) -> str:
    """The environment variable that sets `field` of `settings`."""
    info = settings.model_fields[field]
    if isinstance(info.validation_alias, str):
        return info.validation_alias
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


class FileSource(PydanticBaseSettingsSource):
    """Reads ``<NAME>_FILE`` variables: the value is the named file's content without the final line break."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of one field, or None when no file is named for it.

        Raises:
            ValueError: the named file cannot be read.
        """
        name = environment_name(self.settings_cls, field_name)
        key = field.validation_alias if isinstance(field.validation_alias, str) else field_name
        path = os.environ.get(f"{name}_FILE")
        if path is None:
            return None, key, False
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), key, False
        except (OSError, UnicodeError) as error:
            raise ValueError(f"{name}_FILE names {path}, which cannot be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        """The values of all fields that have a file."""
        found = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, field_name)
            if value is not None:
                found[key] = value
        return found


class CommonSettings(BaseSettings):
    """What every service needs to reach Kafka, to log, and to stop."""

    # Nobody may print a secret, and an error about one must not either.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka brokers to start from, `host:port`, comma separated.",
    )
    kafka_idempotence: bool = Field(
        True,
        validation_alias="KAFKA_IDEMPOTENCE",
        description="Idempotent producer. Off only for the embedded broker, which has none.",
    )
    kafka_compression: Literal["none", "lz4", "gzip"] = Field(
        "lz4", validation_alias="KAFKA_COMPRESSION", description="Compression of the batches that are sent."
    )
    kafka_session_timeout_ms: int = Field(
        10_000,
        ge=1_000,
        validation_alias="KAFKA_SESSION_TIMEOUT_MS",
        description="A consumer that is silent this long loses its partitions. Ten seconds: longer than a slow garbage"
        " collection or a short network cut, short enough that a dead instance's signatures wait no longer.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="LOG_LEVEL", description="Least severe level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        "json", validation_alias="LOG_FORMAT", description="One JSON object a line, or text for a person."
    )
    drain_seconds: float = Field(
        10.0,
        gt=0,
        validation_alias="DRAIN_SECONDS",
        description="Seconds that a stop or a rebalance may spend on finishing the batch in hand. What is not finished"
        " by then is not committed, and is done again by whoever reads on.",
    )
    host: str = Field("127.0.0.1", description="Address that HTTP binds to.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then ``<NAME>_FILE``."""
        return init_settings, env_settings, FileSource(settings_cls)


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 16:
        raise ValueError("must have at least 16 characters; make one with: openssl rand -hex 32")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
"""A secret of at least 16 characters; printed and logged as stars."""


class SettingsError(Exception):
    """The environment does not hold a whole, valid configuration. The message names each variable and what to do."""


class PostgresSettings(CommonSettings):
    """For services that use PostgreSQL."""

    postgres_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        validation_alias="POSTGRES_URL",
        description="`postgresql://user:password@host:port/database`.",
    )


class SignerSettings(CommonSettings):
    """For services that make signer keys."""

    signer_pepper: Secret = Field(
        validation_alias="SIGNER_PEPPER",
        description="Secret under which signer keys are made. The same for ingest and verify, for ever: with another"
        " one, everybody could sign again.",
    )

    @property
    def pepper(self) -> bytes:
        """The pepper as `shared.identity` takes it."""
        return self.signer_pepper.get_secret_value().encode()


class ConsumerSettings(CommonSettings):
    """For services that have a consumer group."""

    dlq_ratio_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Consumption stops when more than this part of the last 1,000 records could not be read.",
    )


SomeSettings = TypeVar("SomeSettings", bound=BaseSettings)


def load(settings: type[SomeSettings]) -> SomeSettings:
    """Read settings from the environment.

    Raises:
        SettingsError: a variable is missing or wrong, or a file that one names cannot be read.
    """
    try:
        return settings()
    except ValidationError as error:
        lines = [_line(settings, dict(item)) for item in error.errors(include_url=False, include_input=False)]
        raise SettingsError("The configuration is not complete:\n" + "\n".join(lines)) from None
    except ValueError as error:  # from `FileSource`: the message names the variable and the file
        raise SettingsError(f"The configuration cannot be read:\n  {error}") from None


def _line(settings: type[BaseSettings], error: dict[str, Any]) -> str:
    """One wrong setting, for the person who starts the service. Never its value: it may be a secret."""
    if not error["loc"]:  # of several settings together: the message names them
        return f"  {error['msg'].removeprefix('Value error, ')}."
    place = str(error["loc"][0])
    for field, info in settings.model_fields.items():
        if place in (field, info.validation_alias):
            name, meaning = environment_name(settings, field), info.description or ""
            break
    else:
        name, meaning = place, ""
    what = "is not set" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
    return f"  {name}: {what}. Set {name}, or {name}_FILE to a file that holds it. {meaning}".rstrip()
