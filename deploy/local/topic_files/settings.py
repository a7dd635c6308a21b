"""Settings of the topic files: environment variables with the prefix `TOPIC_FILES_`."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class TopicFilesSettings(BaseSettings):
    """Settings of the topic files.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        folder: the folder of the objects, one file each.
        token: the token that every request must carry. Every user can reach loopback; only the broker has the token.
    """

    model_config = SettingsConfigDict(env_prefix="TOPIC_FILES_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    folder: Path
    token: SecretStr
