"""Apache Kafka: one KRaft node (combined broker and controller), from the jars on Maven Central.

Needs Java 17 or newer, and `mvn` once to fetch the jars that `deploy/kafka/pom.xml` pins.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from deploy.local import PROJECT_ROOT
from deploy.local.parts.children import run_to_end
from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import PartFailed

_POM = PROJECT_ROOT / "deploy" / "kafka" / "pom.xml"
_JARS = PROJECT_ROOT / ".tools" / "kafka"
_JAVA_VERSION = 17  # Kafka 4 brokers are compiled for it
_NODE_ID = 1
_FORMATTED = "formatted"
_CLUSTER_ID = "Z3JvdW5kc3dlbGwtbG9jYQ"  # any 16 bytes in base64
_MAVEN_SECONDS = 600.0  # 43 MB of jars, the first time over a slow line

# C1 alone: the node lives for a test or an evening, and the optimising compiler would compete with it for two cores.
_JAVA_OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_LOG_OPTIONS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)


class KafkaJarsMissing(PartFailed):
    """Apache Kafka is not available: no Java, no `mvn`, or no Maven Central. The message says which."""


class ApacheKafka(KafkaBroker):
    """An Apache Kafka node.

    Args:
        data_dir: its log directory; kept over restarts, created if missing.
        services_port: a second port. Its clients get `services_advertised_port` as the broker's address, for a proxy:
            clients that connect through a proxy and get `port` would bypass it from then on.
        services_advertised_port: the advertised port of `services_port`; set both or neither.
    """

    kind = "apache"
    idempotence = True
    start_seconds = 180.0

    def __init__(
        self,
        *,
        data_dir: Path,
        log_dir: Path,
        port: int | None = None,
        controller_port: int | None = None,
        services_port: int | None = None,
        services_advertised_port: int | None = None,
    ) -> None:
        super().__init__(name="kafka", log_file=log_dir / "kafka.log")
        if (services_port is None) is not (services_advertised_port is None):
            raise ValueError("services_port and services_advertised_port belong together")
        self.port = port or free_port()
        self.services_port = services_port
        self._services_advertised_port = services_advertised_port
        self._data_dir = data_dir
        self._properties = data_dir / "server.properties"
        self._controller_port = controller_port or free_port()
        self._classpath = ""

    async def _prepare(self) -> None:
        jars = await fetch_jars()
        self._classpath = str(jars / "*")
        self._data_dir.mkdir(parents=True, exist_ok=True)
        settings = server_properties(
            port=self.port,
            controller_port=self._controller_port,
            data_dir=self._data_dir / "log",
            services_port=self.services_port,
            services_advertised_port=self._services_advertised_port,
        )
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        if not (self._data_dir / _FORMATTED).exists():
            shutil.rmtree(self._data_dir / "log", ignore_errors=True)  # left by an interrupted format
            await self._format()
            (self._data_dir / _FORMATTED).touch()

    async def _format(self) -> None:
        tool = self._java("kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", _CLUSTER_ID)
        code, output = await run_to_end([*tool, "--config", str(self._properties)])
        if code != 0:
            raise PartFailed(f"kafka: formatting {self._data_dir} failed:\n{output}")

    def _command(self) -> Sequence[str | Path]:
        return self._java("kafka.Kafka", str(self._properties))

    def _java(self, *main: str) -> list[str]:
        return [_java_binary(), *_JAVA_OPTIONS, *_LOG_OPTIONS, "-cp", self._classpath, *main]


def server_properties(
    *,
    port: int,
    controller_port: int,
    data_dir: Path,
    services_port: int | None = None,
    services_advertised_port: int | None = None,
) -> Mapping[str, str]:
    """Return the configuration of a single node that serves `port` on loopback and keeps its data in `data_dir`.

    With `services_port` it serves that too, and advertises `services_advertised_port` to its clients.
    """
    listeners = {"PLAINTEXT": port, "CONTROLLER": controller_port}
    advertised = dict(listeners)
    if services_port is not None and services_advertised_port is not None:
        listeners["SERVICES"], advertised["SERVICES"] = services_port, services_advertised_port
    return {
        "process.roles": "broker,controller",
        "node.id": str(_NODE_ID),
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
        "listeners": _listed(listeners),
        "advertised.listeners": _listed(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data_dir),
        # `groundswell topics apply` creates topics; a typo must not create one.
        "auto.create.topics.enable": "false",
        "num.partitions": "12",
        # One node cannot replicate.
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # 50 each by default; opening them is most of a first start.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        # A group waits 3 s for more members by default; here no others join, and tests start many groups.
        "group.initial.rebalance.delay.ms": "0",
        # Allows the short sessions of tests in which a consumer is declared dead.
        "group.min.session.timeout.ms": "1000",
        # After a crash a broker can register again only after its last session has expired (9 s by default).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def _listed(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in listeners.items())


async def fetch_jars(pom: Path = _POM, into: Path = _JARS) -> Path:
    """Return the folder with Kafka's jars, and fetch them with `mvn` if `pom` has changed or they are missing.

    Safe to call from several processes at once: one fetches, the others wait.

    Raises:
        KafkaJarsMissing: Java (or a new enough one) or mvn is not installed, or Maven Central did not answer.
    """
    await _check_java()
    jars = _place_of_jars(pom, into)
    if _is_filled(jars):
        return jars
    async with _only_one(into / "lock"):
        if not _is_filled(jars):
            # Fetched into a temporary folder and renamed, so that an interrupted download leaves nothing incomplete.
            with tempfile.TemporaryDirectory(dir=into, prefix="fetching-") as fetching:
                fetched = Path(fetching) / "jars"
                await _run_maven(pom, fetched)
                fetched.rename(jars)
    return jars


def _place_of_jars(pom: Path, into: Path) -> Path:
    """Return a folder that depends on the content of the pom, so that versions are never mixed."""
    into.mkdir(parents=True, exist_ok=True)
    return into / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]


def _is_filled(jars: Path) -> bool:
    return any(jars.glob("kafka_*.jar"))


@contextlib.asynccontextmanager
async def _only_one(lock_file: Path) -> AsyncIterator[None]:
    """Hold a lock between processes; waiting for it can be cancelled."""
    with lock_file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.2)
        yield


async def _run_maven(pom: Path, jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaJarsMissing("Apache Kafka needs `mvn` to fetch its jars (Debian: maven; macOS: brew install maven)")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    try:
        async with asyncio.timeout(_MAVEN_SECONDS):
            code, output = await run_to_end([maven, "--quiet", "--batch-mode", "--file", pom, *goal])
    except TimeoutError as error:
        raise KafkaJarsMissing(f"Maven Central did not deliver Kafka's jars in {_MAVEN_SECONDS:.0f} s") from error
    if code != 0 or not _is_filled(jars):
        raise KafkaJarsMissing(f"Kafka's jars could not be fetched:\n{output}")


def _java_binary() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise KafkaJarsMissing(f"Apache Kafka needs Java {_JAVA_VERSION} or newer (Debian: default-jre-headless)")
    return java


async def _check_java() -> None:
    java = _java_binary()
    _, said = await run_to_end([java, "-version"])
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA_VERSION:
        raise KafkaJarsMissing(f"Apache Kafka needs Java {_JAVA_VERSION} or newer; {java} says: {said.strip()}")
