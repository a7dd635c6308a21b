"""Settings that every service has, and how settings are read.

Values come from the environment; any of them may instead come from a file named by ``<NAME>_FILE`` (how containers and
orchestrators hand over secrets). Settings are frozen: what was checked at start is what runs.
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


@dataclass(frozen=True, slots=True)
class Exposure:
    """A password that somebody on the way could read."""

    variable: str
    """The variable to change."""
    hosts: tuple[str, ...]
    """Where the password goes."""
    advice: str
    """What to set instead."""


class EnvironmentSettings(BaseSettings):
    """Settings from arguments, the environment and files, frozen."""

    # Nobody may print a secret, and an error about one must not either.
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
        """Arguments, then the environment, then ``<NAME>_FILE``."""
        return init_settings, env_settings, FileSource(settings_cls)

    def exposures(self) -> list[Exposure]:
        """Passwords that go unencrypted to hosts outside this machine and networks of one's own."""
        return []


def unset_when_empty(value: Any) -> Any:
    """None for an empty text, which is what Compose makes of ``${NAME:-}``."""
    return None if value == "" else value


Certificates = Annotated[str, AfterValidator(tls.certificates)]
"""Certificates in PEM form."""


class KafkaSettings(EnvironmentSettings):
    """What every Kafka client needs to connect."""

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka brokers to start from, `host:port`, comma separated.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="What the listener speaks. `SSL`: encrypted (TLS 1.2 or newer, the broker's certificate and name are"
        " checked). `SASL_PLAINTEXT`: login with a password, not encrypted. `SASL_SSL`: both.",
    )
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(unset_when_empty)
    ] = Field(
        None,
        validation_alias="KAFKA_SASL_MECHANISM",
        description="How to log in: `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`. Required with SASL. `PLAIN` shows the"
        " brokers the password itself.",
    )
    kafka_sasl_username: Annotated[str | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="KAFKA_SASL_USERNAME", description="Who logs in. Required with SASL."
    )
    kafka_sasl_password: Annotated[SecretStr | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="KAFKA_SASL_PASSWORD", description="The password. Required with SASL."
    )
    kafka_ssl_ca: Annotated[Certificates | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="KAFKA_SSL_CA",
        description="Certificates (PEM) of the authorities that may have signed the brokers' certificates, usually as"
        " `KAFKA_SSL_CA_FILE=<path>`. Empty: those that this machine trusts.",
    )
    kafka_ssl_certificate: Annotated[Certificates | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="KAFKA_SSL_CERTIFICATE",
        description="Our own certificate and its chain (PEM), for brokers that ask for one;"
        " `KAFKA_SSL_CERTIFICATE_FILE=<path>`.",
    )
    kafka_ssl_key: Annotated[SecretStr | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="KAFKA_SSL_KEY",
        description="Its private key (PEM, not encrypted); `KAFKA_SSL_KEY_FILE=<path>`.",
    )

    @property
    def kafka_encrypts(self) -> bool:
        """Whether connections are encrypted."""
        return self.kafka_security_protocol in ("SSL", "SASL_SSL")

    @property
    def kafka_logs_in(self) -> bool:
        """Whether clients log in with a password."""
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
        """Also Kafka's, where it is not encrypted."""
        servers = self.kafka_bootstrap_servers.split(",")
        hosts = addresses.far(addresses.without_port(server) for server in servers)
        if self.kafka_security_protocol != "SASL_PLAINTEXT" or not hosts:
            return super().exposures()
        return [*super().exposures(), Exposure("KAFKA_SECURITY_PROTOCOL", tuple(hosts), "SASL_SSL")]


def _all_or_none(values: Mapping[str, object], *, needed: bool, protocol: str, otherwise: str) -> list[str]:
    """What is missing of settings that are needed, or there of settings that would not be used. Names only."""
    wrong = [name for name, value in values.items() if (value is None) == needed]
    if not wrong:
        return []
    names, verb = " and ".join(wrong), "are" if len(wrong) > 1 else "is"
    if needed:
        return [f"{names} {verb} not set, and KAFKA_SECURITY_PROTOCOL={protocol} needs {' and '.join(values)}"]
    return [f"{names} {verb} set, but KAFKA_SECURITY_PROTOCOL is {protocol}: {otherwise}"]


class CommonSettings(KafkaSettings):
    """What every service needs to reach Kafka, to log, and to stop."""

    kafka_idempotence: bool = Field(
        True,
        validation_alias="KAFKA_IDEMPOTENCE",
        description="Idempotent producer. Off only for the embedded broker, which has none.",
    )
    kafka_compression: Literal["none", "lz4", "gzip"] = Field(
        "lz4",
        validation_alias="KAFKA_COMPRESSION",
        description="Compression of `signatures.submitted.v1`, which only Groundswell reads. All other topics are compressed"
        " with gzip, which every Kafka client can read.",
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
    max_connections: int = Field(
        16_000,
        ge=1,
        description="Most HTTP connections at once. One more takes the place of the one that has sent no request for the"
        " longest. Every connection is an open file: the process's hard limit (`ulimit -Hn`) must allow as many.",
    )
    http_head_seconds: float = Field(
        10.0,
        gt=0,
        validation_alias="HTTP_HEAD_SECONDS",
        description="Seconds that a client may take from connecting, or from the last answer, until its request's head is"
        " whole; then it is cut off.",
    )
    http_stall_seconds: float = Field(
        30.0,
        gt=0,
        validation_alias="HTTP_STALL_SECONDS",
        description="Seconds for which a client may take nothing of a live stream; of any other answer, twice as long."
        " Then it is cut off.",
    )


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 16:
        raise ValueError("must have at least 16 characters; make one with: openssl rand -hex 32")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
"""A secret of at least 16 characters; printed and logged as stars."""


class SettingsError(Exception):
    """The environment does not hold a whole, valid configuration. The message names each variable and what to do."""


def _postgres_url(url: SecretStr) -> SecretStr:
    addresses.require_postgres_url(url.get_secret_value())
    return url


class DatabaseSettings(EnvironmentSettings):
    """What it takes to connect to PostgreSQL."""

    postgres_url: Annotated[SecretStr, AfterValidator(_postgres_url)] = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        validation_alias="POSTGRES_URL",
        description="`postgresql://user:password@host:port/database`. Encrypted and with the server's certificate and"
        " name checked: add `?sslmode=verify-full&sslrootcert=<path of the authorities' certificates>`. Without"
        " `sslmode` it is encrypted where the server offers that.",
    )

    def exposures(self) -> list[Exposure]:
        """Also PostgreSQL's, where a connection that is not encrypted would do."""
        hosts = addresses.postgres_exposes_password_to(self.postgres_url.get_secret_value())
        found = [Exposure("POSTGRES_URL", tuple(hosts), "sslmode=verify-full&sslrootcert=…")] if hosts else []
        return [*super().exposures(), *found]


class PostgresSettings(DatabaseSettings, CommonSettings):
    """For services that use PostgreSQL."""


class SignerSettings(CommonSettings):
    """For services that make signer keys."""

    signer_pepper: Secret = Field(
        validation_alias="SIGNER_PEPPER",
        description="Secret under which signer keys are made. The same for ingest and verify, for ever: with another"
        " one, everybody could sign again.",
    )

    @property
    def pepper(self) -> bytes:
        """The pepper as `shared.contract.identity` takes it."""
        return self.signer_pepper.get_secret_value().encode()


class ConsumerSettings(CommonSettings):
    """For services that have a consumer group."""

    dlq_ratio_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Consumption stops when more than this part of the last 1,000 records could not be read or applied.",
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
