"""Settings of notify."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from services.notify.mail.letter import parse_mailbox
from services.notify.mail.server import SmtpServer
from shared.runtime import addresses
from shared.runtime.settings import Certificates, ConsumerSettings, Exposure, PostgresSettings, unset_when_empty


def _smtp_url(url: SecretStr) -> SecretStr:
    SmtpServer.parse(url.get_secret_value())
    return url


def _mailbox(text: str) -> str:
    parse_mailbox(text)
    return text


def _pages_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with https:// or http://")
    return url.rstrip("/")


class Settings(PostgresSettings, ConsumerSettings):
    """Settings of notify; environment names start with ``NOTIFY_`` unless stated otherwise."""

    model_config = SettingsConfigDict(env_prefix="NOTIFY_")

    port: int = Field(8004, ge=1, le=65535, description="Port of /livez, /readyz, /metrics and /docs/asyncapi.")
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)] = Field(
        validation_alias="SMTP_URL",
        description="The SMTP relay: `smtps://user:password@host` (TLS, port 465), `smtp+starttls://user:password@host`"
        " (STARTTLS required, port 587), or `smtp://host` (no encryption, port 25: for a relay on the same machine or"
        " network). With the first two, the relay's certificate and name are checked.",
    )
    smtp_ssl_ca: Annotated[Certificates | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="SMTP_SSL_CA",
        description="Certificates (PEM) of the authorities trusted to sign the relay's certificate, usually as"
        " `SMTP_SSL_CA_FILE=<path>`. Empty: the machine's trust store.",
    )
    public_pages_url: Annotated[str, AfterValidator(_pages_url)] = Field(
        validation_alias="PUBLIC_PAGES_URL",
        description="Base URL at which browsers reach the petition pages; mails link to `<this>/p/<petition>`. It has no"
        " default, because a mail with a wrong link cannot be recalled.",
    )
    mail_from: Annotated[str, AfterValidator(_mailbox)] = Field(
        "Groundswell <petitions@groundswell.example>",
        description="Sender of the mails: `address` or `Name <address>`. Its domain is part of every Message-ID: set your"
        " own, and do not change it while deliveries are pending.",
    )
    coalesce_seconds: float = Field(
        120.0,
        ge=0,
        le=604_800,
        description="Seconds that a milestone waits for others of the same surge, so that they share one mail. The default"
        " is two minutes: a viral petition passes several thresholds in less, and such a mail is not read sooner.",
    )
    smtp_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="Timeout in seconds for connecting, and for one whole mail. A relay usually answers in well under one;"
        " giving up on a server that is still storing the mail leads to a second copy (RFC 1047).",
    )
    lease_seconds: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="Seconds that a sender's lease on claimed mails lasts. After a crash, they are sent that much later,"
        " so that a sender that is only slow is not overtaken. At least twice the SMTP timeout.",
    )
    claim_batch: int = Field(
        20,
        ge=1,
        le=1_000,
        description="Most mails that a sender claims at once, for one SMTP connection. Small, so that several instances"
        " share a burst.",
    )
    poll_seconds: float = Field(1.0, gt=0, description="Seconds between two looks for due mails, while there are none.")
    retry_first_seconds: float = Field(
        60.0,
        gt=0,
        description="Seconds before the second attempt at a deferred mail (4xx); they double with each attempt.",
    )
    retry_most_seconds: float = Field(
        3600.0,
        gt=0,
        le=604_800,
        description="Most seconds between two attempts, so that a server that has recovered is noticed.",
    )
    give_up_days: float = Field(
        5.0,
        gt=0,
        description="Days after which a mail that is still deferred is given up; RFC 5321 section 4.5.4.1 asks for four to"
        " five. Time in which the SMTP server itself cannot be reached does not start them.",
    )

    @field_validator("smtp_ssl_ca")
    @classmethod
    def _has_a_use(cls, authorities: str | None, others: ValidationInfo) -> str | None:
        url = others.data.get("smtp_url")
        if authorities and url and SmtpServer.parse(url.get_secret_value()).encryption == "none":
            raise ValueError("is set, but SMTP_URL begins with smtp://, which is not encrypted")
        return authorities

    @field_validator("lease_seconds")
    @classmethod
    def _outlasts_a_mail(cls, seconds: float, others: ValidationInfo) -> float:
        if seconds < 2 * others.data.get("smtp_timeout_seconds", 0):
            raise ValueError("must be at least twice NOTIFY_SMTP_TIMEOUT_SECONDS")
        return seconds

    @field_validator("retry_most_seconds")
    @classmethod
    def _not_below_the_first(cls, seconds: float, others: ValidationInfo) -> float:
        if seconds < others.data.get("retry_first_seconds", 0):
            raise ValueError("must not be below NOTIFY_RETRY_FIRST_SECONDS")
        return seconds

    def exposures(self) -> list[Exposure]:
        """The inherited ones, and the relay's."""
        server = SmtpServer.parse(self.smtp_url.get_secret_value())
        hosts = addresses.far([server.host]) if server.password and server.encryption == "none" else []
        found = [Exposure("SMTP_URL", tuple(hosts), "smtps:// or smtp+starttls://")] if hosts else []
        return [*super().exposures(), *found]
