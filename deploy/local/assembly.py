"""The parts of a stack: its own, and external ones whose addresses are in the environment."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.embedded_kafka import EmbeddedKafka, TopicFiles
from deploy.local.parts.kafka import SECURITY_VARIABLES, BrokerKind, KafkaBroker
from deploy.local.parts.mail_catcher import MailCatcher
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from deploy.local.place import Place


class Assembly:
    """The parts of a stack, not started.

    Args:
        broker: which Kafka broker, if none is in the environment.
        data, logs: the folders for the data and logs of the parts.
        environ: the environment with addresses and secrets.
        place: keeps ports and secrets from one run to the next.

    Attributes:
        kafka, kafka_files, valkey, postgres, mailbox: the parts; None where an external address stands in.
        environment: the variables that point services at the parts, and the stack's secrets.
        external: the names of those variables that were in `environ`.
    """

    def __init__(
        self, *, broker: BrokerKind, data: Path, logs: Path, environ: Mapping[str, str], place: Place | None
    ) -> None:
        self._place = place
        self.external: set[str] = set()
        self.kafka: KafkaBroker | None = None
        self.kafka_files: TopicFiles | None = None
        self.valkey: Valkey | None = None
        self.postgres: Postgres | None = None
        self.mailbox: MailCatcher | None = None
        self.environment: dict[str, str] = stack_secrets(environ, place)
        if self._take_over(environ, "KAFKA_BOOTSTRAP_SERVERS"):
            for name in SECURITY_VARIABLES:
                self._take_over(environ, name)
        else:
            self._add_broker(broker, data=data, logs=logs)
        if not self._take_over(environ, "REDIS_URL"):
            self.valkey = Valkey(
                data_dir=data / "valkey", log_dir=logs, port=self._port("valkey"), password=self._secret("valkey")
            )
        if not self._take_over(environ, "POSTGRES_URL"):
            self.postgres = Postgres(
                data_dir=data / "postgres",
                log_dir=logs,
                port=self._port("postgres"),
                password=self._secret("postgres"),
                keep=place is not None,
                last_data_dir=None if place is None else place.postgres_dir,
            )
        if not self._take_over(environ, "SMTP_URL"):
            self.mailbox = MailCatcher(
                data_dir=data / "mailbox",
                log_dir=logs,
                smtp_port=self._port("mailbox"),
                http_port=self._port("mailbox page"),
            )
        for part in (self.kafka_files, self.kafka, self.valkey, self.postgres, self.mailbox):
            if part is not None:
                self.environment.update(part.environment)

    def _take_over(self, environ: Mapping[str, str], name: str) -> bool:
        """Use an address from the environment; return whether there was one."""
        if address := given(environ, name):
            self.environment[name] = address
            self.external.add(name)
            return True
        return False

    def _add_broker(self, kind: BrokerKind, *, data: Path, logs: Path) -> None:
        if kind == "apache":
            self.kafka = ApacheKafka(
                data_dir=data / "kafka",
                log_dir=logs,
                port=self._port("kafka"),
                controller_port=self._port("kafka controller"),
            )
            return
        if self._place is not None:
            self.kafka_files = TopicFiles(
                data_dir=data / "kafka",
                log_dir=logs,
                port=self._port("kafka-files"),
                token=self._place.secret("kafka-files"),
            )
        self.kafka = EmbeddedKafka(log_dir=logs, port=self._port("kafka"), files=self.kafka_files)

    def _port(self, name: str) -> int | None:
        return None if self._place is None else self._place.port(name)

    def _secret(self, name: str) -> str | None:
        return None if self._place is None else self._place.secret(name)


def given(environ: Mapping[str, str], name: str) -> str | None:
    """Return what the environment sets for `name`, directly or in the file that `<name>_FILE` names."""
    if name in environ:
        return environ[name]
    file = environ.get(f"{name}_FILE")
    return None if file is None else Path(file).read_text(encoding="utf-8").rstrip("\r\n")


def stack_secrets(environ: Mapping[str, str], place: Place | None = None) -> dict[str, str]:
    """Return the secrets of a stack: from the environment, otherwise from the place, otherwise new, random ones."""
    return {
        name: given(environ, name) or (secrets.token_urlsafe(32) if place is None else place.secret(name))
        for name in ("SIGNER_PEPPER", "ADMIN_TOKEN", "API_KEYS")
    }
