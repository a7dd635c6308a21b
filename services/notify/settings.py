"""What can be turned of notify."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from services.notify.mail.letter import parse_mailbox
from services.notify.mail.smtp_server import SmtpServer
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
    """Settings of notify; environment names start with ``NOTIFY_`` unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="NOTIFY_")

    port: int = Field(8004, ge=1, le=65535, description="Port of /livez, /readyz, /metrics and /docs/asyncapi.")
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)] = Field(
        validation_alias="SMTP_URL",
        description="The relay that takes the mails: `smtps://user:password@host` (TLS, port 465),"
        " `smtp+starttls://user:password@host` (STARTTLS required, port 587), or `smtp://host` (no encryption, port 25:"
        " for a relay on the same machine or network). With the first two, the relay's certificate and name are checked.",
    )
    smtp_ssl_ca: Annotated[Certificates | None, BeforeValidator(unset_when_empty)] = Field(
        None,
        validation_alias="SMTP_SSL_CA",
        description="Certificates (PEM) of the authorities that may have signed the relay's certificate, usually as"
        " `SMTP_SSL_CA_FILE=<path>`. Empty: those that this machine trusts.",
    )
    public_pages_url: Annotated[str, AfterValidator(_pages_url)] = Field(
        validation_alias="PUBLIC_PAGES_URL",
        description="Where browsers reach the petition pages; a mail links to `<this>/p/<petition>`. It has no default:"
        " a mail with a wrong link cannot be called back.",
    )
    mail_from: Annotated[str, AfterValidator(_mailbox)] = Field(
        "Groundswell <petitions@groundswell.example>",
        description="Who the mails are from: `address` or `Name <address>`. Its domain ends every Message-ID; set your"
        " own, and do not change it while mails are under way.",
    )
    coalesce_seconds: float = Field(
        120.0,
        ge=0,
        le=604_800,
        description="How long a milestone waits for others of the same surge, which then share one mail. Two minutes: a"
        " viral petition passes several thresholds in less, and nobody reads this mail within two minutes.",
    )
    smtp_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="Seconds for connecting, and for one whole mail. A relay answers in well under one; giving up on a"
        " server that is still writing the mail down makes a copy of it (RFC 1047).",
    )
    lease_seconds: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="How long a sender may hold mails. After a crash, those it held go out this much later, so that a"
        " sender that is only slow is not overtaken. At least twice the SMTP timeout.",
    )
    claim_batch: int = Field(
        20,
        ge=1,
        le=1_000,
        description="Most mails that a sender takes at once, for one SMTP connection. Small, so that several instances"
        " share a burst.",
    )
    poll_seconds: float = Field(
        1.0, gt=0, description="How often the sender looks for mails that are due, while there are none."
    )
    retry_first_seconds: float = Field(
        60.0,
        gt=0,
        description="Wait before the second attempt at a mail that the server put off (4xx); it doubles each time.",
    )
    retry_most_seconds: float = Field(
        3600.0,
        gt=0,
        le=604_800,
        description="Longest wait between two attempts, so that a server that is well again is noticed.",
    )
    give_up_days: float = Field(
        5.0,
        gt=0,
        description="A mail that has been put off for this long is given up. Four to five days is what RFC 5321 section"
        " 4.5.4.1 asks for. Time in which the SMTP server itself could not be reached does not start it.",
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
        """Also that of the relay."""
        server = SmtpServer.parse(self.smtp_url.get_secret_value())
        hosts = addresses.far([server.host]) if server.password and server.encryption == "none" else []
        found = [Exposure("SMTP_URL", tuple(hosts), "smtps:// or smtp+starttls://")] if hosts else []
        return [*super().exposures(), *found]
