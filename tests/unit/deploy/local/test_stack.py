"""What a stack decides before it starts anything."""

import fcntl
import stat
from pathlib import Path

import pytest

from deploy.local.assembly import given, stack_secrets
from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.process import PartFailed
from deploy.local.stack import Stack
from deploy.local.state import StackState


def test_every_stack_has_secrets_of_its_own() -> None:
    one, other = stack_secrets({}), stack_secrets({})
    assert set(one) == {"SIGNER_PEPPER", "ADMIN_TOKEN", "API_KEYS"}
    assert all(len(secret) >= 32 for secret in one.values())
    assert not set(one.values()) & set(other.values())


def test_secrets_of_the_environment_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "pepper"
    file.write_text("pepper from a file\n")
    secrets = stack_secrets({"SIGNER_PEPPER_FILE": str(file), "ADMIN_TOKEN": "token of the environment"})
    assert secrets["SIGNER_PEPPER"] == "pepper from a file"
    assert secrets["ADMIN_TOKEN"] == "token of the environment"


def test_a_value_is_given_by_its_name_or_its_file_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://from-file/0\n")
    assert given({"REDIS_URL": "redis://direct/0", "REDIS_URL_FILE": str(file)}, "REDIS_URL") == "redis://direct/0"
    assert given({"REDIS_URL_FILE": str(file)}, "REDIS_URL") == "redis://from-file/0"
    assert given({}, "REDIS_URL") is None


def test_the_broker_is_the_one_asked_for(tmp_path: Path) -> None:
    assert isinstance(Stack(broker="embedded", state_dir=tmp_path, environ={}).kafka, EmbeddedKafka)
    assert isinstance(Stack(broker="apache", state_dir=tmp_path, environ={}).kafka, ApacheKafka)


def test_services_of_the_embedded_broker_are_told_that_it_has_no_idempotent_producer(tmp_path: Path) -> None:
    assert Stack(broker="embedded", state_dir=tmp_path, environ={}).environment["KAFKA_IDEMPOTENCE"] == "false"
    assert Stack(broker="apache", state_dir=tmp_path, environ={}).environment["KAFKA_IDEMPOTENCE"] == "true"


@pytest.mark.parametrize(
    ("name", "address", "part"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092", "kafka"),
        ("REDIS_URL", "redis://redis.example/0", "valkey"),
        ("POSTGRES_URL", "postgresql://postgres.example/groundswell", "postgres"),
        ("SMTP_URL", "smtps://smtp.example:465", "mailbox"),
    ],
)
def test_a_part_whose_address_is_in_the_environment_is_not_started(
    tmp_path: Path, name: str, address: str, part: str
) -> None:
    stack = Stack(state_dir=tmp_path, environ={name: address})
    assert getattr(stack, part) is None
    assert part not in {process.name for process in stack.parts}
    assert len(stack.parts) == 3
    assert stack.environment[name] == address


def test_services_are_told_each_others_public_addresses(tmp_path: Path) -> None:
    stack = Stack(state_dir=tmp_path, environ={}, instances={"tally": 2})
    assert stack.environment["PUBLIC_INGEST_URL"] == stack.services["ingest"][0].url
    assert stack.environment["PUBLIC_PAGES_URL"] == stack.services["tally"][0].url


def test_instances_of_a_service_have_names_and_ports_of_their_own(tmp_path: Path) -> None:
    stack = Stack(state_dir=tmp_path, environ={}, instances={"verify": 3})
    assert [process.name for process in stack.services["verify"]] == ["verify", "verify-2", "verify-3"]
    assert len({process.url for process in stack.processes}) == len(stack.processes)


async def test_two_stacks_do_not_share_a_directory(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PartFailed, match="another stack runs in"):
            await Stack(state_dir=tmp_path, environ={}).start()


def test_the_state_file_is_read_back_and_is_for_its_owner_only(tmp_path: Path) -> None:
    state = Stack(state_dir=tmp_path, environ={"API_KEYS": "first-partner, second-partner"}).state
    file = state.write(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert StackState.read(tmp_path) == state
    assert state.api_key == "first-partner"
    StackState.remove(tmp_path)
    with pytest.raises(FileNotFoundError):
        StackState.read(tmp_path)


def test_a_file_that_a_killed_stack_left_is_no_stack(tmp_path: Path) -> None:
    state = Stack(state_dir=tmp_path, environ={}).state
    state.model_copy(update={"pid": 2**22 + 1}).write(tmp_path)  # above the highest process id of any system
    with pytest.raises(FileNotFoundError, match="no longer runs"):
        StackState.read(tmp_path)
