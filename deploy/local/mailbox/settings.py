"""Settings of the mail catcher: environment variables with the prefix `MAILBOX_`."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class MailboxSettings(BaseSettings):
    """Settings of the mail catcher.

    Attributes:
        host: address both servers listen on. Loopback: there is no password.
        smtp_port: where mail is taken.
        http_port: where the mailbox page is served.
        file: where mails are kept, one JSON object per line.
    """

    model_config = SettingsConfigDict(env_prefix="MAILBOX_", frozen=True)

    host: str = "127.0.0.1"
    smtp_port: int = 2525
    http_port: int = 8025
    file: Path = Path(".groundswell/mailbox.jsonl")
