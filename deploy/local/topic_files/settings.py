"""Settings of the topic files: environment variables with the prefix `TOPIC_FILES_`."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class TopicFilesSettings(BaseSettings):
    """Settings of the topic files.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        folder: where the objects are kept, one file each.
        token: what every request must carry. Loopback is every user's; the token is the broker's alone.
    """

    model_config = SettingsConfigDict(env_prefix="TOPIC_FILES_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    folder: Path
    token: SecretStr
