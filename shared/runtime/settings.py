"""The settings that all services share, and how settings are read.

Values come from environment variables. Instead of any variable, ``<NAME>_FILE`` may name a file that holds the value, as
container orchestrators provide secrets. Settings are frozen: a service runs with the values that were validated at start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.runtime import addresses, tls


def environment_name(settings: type[BaseSettings], field: str) -> str:
    """Return the name of the environment variable that sets `field` of `settings`."""
    info = settings.model_fields[field]
    if isinstance(info.validation_alias, str):
        return info.validation_alias
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


class FileSource(PydanticBaseSettingsSource):
    """Reads values from files: ``<NAME>_FILE`` names a file, whose content without final line breaks is the value."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of one field, or None if no file is named for it.

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
        """Return the values of all fields for which a file is named."""
        found = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, field_name)
            if value is not None:
                found[key] = value
        return found


@dataclass(frozen=True, slots=True)
class Exposure:
    """A password that is sent unencrypted over a network that others may read."""

    variable: str
    """The variable to change."""
    hosts: tuple[str, ...]
    """The hosts to which the password is sent."""
    advice: str
    """The value to set instead."""


class EnvironmentSettings(BaseSettings):
    """Settings from arguments, the environment and files, frozen."""

    # Error messages must not show input: it may be a secret.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, the environment, ``<NAME>_FILE``."""
        return init_settings, env_settings, FileSource(settings_cls)

    def exposures(self) -> list[Exposure]:
        """Return the passwords that are sent unencrypted to hosts outside this machine and private networks."""
        return []


def unset_when_empty(value: Any) -> Any:
    """Return None for an empty string: Compose expands ``${NAME:-}`` to one if the variable is not set."""
    return None if value == "" else value


Certificates = Annotated[str, AfterValidator(tls.certificates)]
"""Certificates in PEM form."""


class KafkaSettings(EnvironmentSettings):
    """Settings of every Kafka client."""

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka brokers for the first connection: `host:port`, comma-separated.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="Protocol of the brokers' listener. `SSL`: encrypted (TLS 1.2 or newer; the broker's certificate and"
        " host name are verified). `SASL_PLAINTEXT`: authentication by password, not encrypted. `SASL_SSL`: both.",
    )
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(unset_when_empty)
    ] = Field(
        None,
        validation_alias="KAFKA_SASL_MECHANISM",
        description="Authentication mechanism: `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`. Required with SASL. `PLAIN`"
        " sends the password itself to the brokers.",
    )
    kafka_sasl_username: Annotated[str | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="KAFKA_SASL_USERNAME", description="User name. Required with SASL."
    )
    kafka_sasl_password: Annotated[SecretStr | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="KAFKA_SASL_PASSWORD", description="Password. Required with SASL."
    )
    kafka_ssl_ca: Annotated[Certificates | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="KAFKA_SSL_CA",
        description="Certificates (PEM) of the authorities that are trusted to sign the brokers' certificates, usually as"
        " `KAFKA_SSL_CA_FILE=<path>`. Empty: those that the machine trusts.",
    )
    kafka_ssl_certificate: Annotated[Certificates | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="KAFKA_SSL_CERTIFICATE",
        description="Client certificate and its chain (PEM), for brokers that require one, usually as"
        " `KAFKA_SSL_CERTIFICATE_FILE=<path>`.",
    )
    kafka_ssl_key: Annotated[SecretStr | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="KAFKA_SSL_KEY",
        description="Private key of the client certificate (PEM, not encrypted), usually as `KAFKA_SSL_KEY_FILE=<path>`.",
    )

    @property
    def kafka_encrypts(self) -> bool:
        """Whether connections are encrypted."""
        return self.kafka_security_protocol in ("SSL", "SASL_SSL")

    @property
    def kafka_logs_in(self) -> bool:
        """Whether clients authenticate with a password."""
        return self.kafka_security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @model_validator(mode="after")
    def _kafka_settings_fit(self) -> Self:
        problems = [
            *_all_or_none(
                {
                    "KAFKA_SASL_MECHANISM": self.kafka_sasl_mechanism,
                    "KAFKA_SASL_USERNAME": self.kafka_sasl_username,
                    "KAFKA_SASL_PASSWORD": self.kafka_sasl_password,
                },
                needed=self.kafka_logs_in,
                protocol=self.kafka_security_protocol,
                otherwise="a login needs KAFKA_SECURITY_PROTOCOL=SASL_SSL (or SASL_PLAINTEXT)",
            )
        ]
        of_tls = {
            "KAFKA_SSL_CA": self.kafka_ssl_ca,
            "KAFKA_SSL_CERTIFICATE": self.kafka_ssl_certificate,
            "KAFKA_SSL_KEY": self.kafka_ssl_key,
        }
        if not self.kafka_encrypts:
            problems += _all_or_none(
                of_tls,
                needed=False,
                protocol=self.kafka_security_protocol,
                otherwise="encryption needs KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL",
            )
        elif (self.kafka_ssl_certificate is None) != (self.kafka_ssl_key is None):
            problems.append("KAFKA_SSL_CERTIFICATE and KAFKA_SSL_KEY go together: set both or neither")
        elif self.kafka_ssl_key is not None:
            try:
                tls.client_context(certificate=self.kafka_ssl_certificate, key=self.kafka_ssl_key.get_secret_value())
            except ValueError as error:
                problems.append(f"KAFKA_SSL_CERTIFICATE and KAFKA_SSL_KEY: {error}")
        if problems:
            raise ValueError(";\n  ".join(problems))
        return self

    def exposures(self) -> list[Exposure]:
        """Add Kafka's password if its connection is not encrypted."""
        servers = self.kafka_bootstrap_servers.split(",")
        hosts = addresses.far(addresses.without_port(server) for server in servers)
        if self.kafka_security_protocol != "SASL_PLAINTEXT" or not hosts:
            return super().exposures()
        return [*super().exposures(), Exposure("KAFKA_SECURITY_PROTOCOL", tuple(hosts), "SASL_SSL")]


def _all_or_none(values: Mapping[str, object], *, needed: bool, protocol: str, otherwise: str) -> list[str]:
    """Return an error if a required setting is missing, or if one is set that would not be used. Names only."""
    wrong = [name for name, value in values.items() if (value is None) == needed]
    if not wrong:
        return []
    names, verb = " and ".join(wrong), "are" if len(wrong) > 1 else "is"
    if needed:
        return [f"{names} {verb} not set, and KAFKA_SECURITY_PROTOCOL={protocol} needs {' and '.join(values)}"]
    return [f"{names} {verb} set, but KAFKA_SECURITY_PROTOCOL is {protocol}: {otherwise}"]


class CommonSettings(KafkaSettings):
    """Settings of every service: Kafka, logging, HTTP, shutdown."""

    kafka_idempotence: bool = Field(
        True,
        validation_alias="KAFKA_IDEMPOTENCE",
        description="Use an idempotent producer. Disable it only for the embedded broker, which does not support it.",
    )
    kafka_compression: Literal["none", "lz4", "gzip"] = Field(
        "lz4",
        validation_alias="KAFKA_COMPRESSION",
        description="Compression of `signatures.submitted.v1`, which only Groundswell reads. All other topics use gzip,"
        " which every Kafka client can read.",
    )
    kafka_session_timeout_ms: int = Field(
        10_000,
        ge=1_000,
        validation_alias="KAFKA_SESSION_TIMEOUT_MS",
        description="Milliseconds without a heartbeat after which a consumer loses its partitions. The default is longer"
        " than a slow garbage collection or a short network failure; the signatures of a dead instance wait this long.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="LOG_LEVEL", description="Lowest level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        "json", validation_alias="LOG_FORMAT", description="`json`: one JSON object per line. `console`: readable text."
    )
    drain_seconds: float = Field(
        10.0,
        gt=0,
        validation_alias="DRAIN_SECONDS",
        description="Seconds that a stop or a rebalance waits for the current batch to finish. A batch that is not finished"
        " by then is not committed; the next owner of its partitions repeats it.",
    )
    host: str = Field("127.0.0.1", description="Address on which the HTTP server listens.")
    max_connections: int = Field(
        16_000,
        ge=1,
        description="Maximum number of open HTTP connections. At the limit, a new connection replaces the one that has gone"
        " longest without a complete request. Each connection is an open file: the process's hard limit (`ulimit -Hn`)"
        " must allow as many.",
    )
    http_head_seconds: float = Field(
        10.0,
        gt=0,
        validation_alias="HTTP_HEAD_SECONDS",
        description="Seconds that a client may take, from connecting or from the last response, to send the complete head"
        " of a request. Then the connection is closed.",
    )
    http_stall_seconds: float = Field(
        30.0,
        gt=0,
        validation_alias="HTTP_STALL_SECONDS",
        description="Seconds for which a client may read nothing of a live stream; twice as long for any other response."
        " Then the connection is closed.",
    )


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 16:
        raise ValueError("must have at least 16 characters; make one with: openssl rand -hex 32")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
"""A secret of at least 16 characters; printed and logged as asterisks."""


class SettingsError(Exception):
    """The environment holds no complete, valid configuration. The message names each variable and what to do."""


def _postgres_url(url: SecretStr) -> SecretStr:
    addresses.require_postgres_url(url.get_secret_value())
    return url


class DatabaseSettings(EnvironmentSettings):
    """Settings of a PostgreSQL connection."""

    postgres_url: Annotated[SecretStr, AfterValidator(_postgres_url)] = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        validation_alias="POSTGRES_URL",
        description="`postgresql://user:password@host:port/database`. To encrypt the connection and verify the server's"
        " certificate and host name, add `?sslmode=verify-full&sslrootcert=<path of the authorities' certificates>`."
        " Without `sslmode` the connection is encrypted if the server offers it.",
    )

    def exposures(self) -> list[Exposure]:
        """Add PostgreSQL's password if an unencrypted connection is allowed."""
        hosts = addresses.postgres_exposes_password_to(self.postgres_url.get_secret_value())
        found = [Exposure("POSTGRES_URL", tuple(hosts), "sslmode=verify-full&sslrootcert=…")] if hosts else []
        return [*super().exposures(), *found]


class PostgresSettings(DatabaseSettings, CommonSettings):
    """Settings of services that use PostgreSQL."""


class SignerSettings(CommonSettings):
    """Settings of services that compute signer keys."""

    signer_pepper: Secret = Field(
        validation_alias="SIGNER_PEPPER",
        description="Secret from which signer keys are computed. It must be the same for ingest and verify and must never"
        " change: after a change, every signer could sign again.",
    )

    @property
    def pepper(self) -> bytes:
        """The pepper as `shared.contract.identity` takes it."""
        return self.signer_pepper.get_secret_value().encode()


class ConsumerSettings(CommonSettings):
    """Settings of services that have a consumer group."""

    dlq_ratio_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Consumption stops when more than this fraction of the last 1,000 records could not be read or applied.",
    )


SomeSettings = TypeVar("SomeSettings", bound=BaseSettings)


def load(settings: type[SomeSettings]) -> SomeSettings:
    """Read `settings` from the environment.

    Raises:
        SettingsError: a variable is missing or invalid, or a file that it names cannot be read.
    """
    try:
        return settings()
    except ValidationError as error:
        lines = [_line(settings, dict(item)) for item in error.errors(include_url=False, include_input=False)]
        raise SettingsError("The configuration is not complete:\n" + "\n".join(lines)) from None
    except ValueError as error:  # from `FileSource`: the message names the variable and the file
        raise SettingsError(f"The configuration cannot be read:\n  {error}") from None


def _line(settings: type[BaseSettings], error: dict[str, Any]) -> str:
    """Describe one invalid setting to the operator, without its value: it may be a secret."""
    if not error["loc"]:  # about several settings together: the message names them
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
