"""Which failures pass by themselves, and which are bugs."""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import aiokafka.errors as kafka
import asyncpg
import pytest
import redis.exceptions

from shared.runtime.failures import Collision, InvalidRecord, SetAside, is_about_the_data, is_transient, without_content


def postgres_internal_error(function: str) -> asyncpg.PostgresError:
    """SQLSTATE XX000 as the server sends it; R is the function of its source that raised it."""
    told = {"S": "ERROR", "V": "ERROR", "C": "XX000", "M": "could not extend file: File too large", "R": function}
    error = asyncpg.PostgresError.new(told)
    assert isinstance(error, asyncpg.InternalServerError)
    return error


PASSING: list[BaseException] = [
    # the network
    ConnectionRefusedError(),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    OSError("Multiple exceptions: [Errno 111] Connect call failed"),
    ssl.SSLError("handshake"),
    FileNotFoundError(2, "No such file or directory"),  # a server's unix socket
    # Kafka
    kafka.KafkaConnectionError(),
    kafka.NodeNotReadyError(),
    kafka.RequestTimedOutError(),
    kafka.KafkaTimeoutError(),
    kafka.NotLeaderForPartitionError(),
    kafka.LeaderNotAvailableError(),
    kafka.NotEnoughReplicasError(),
    kafka.NotEnoughReplicasAfterAppendError(),
    kafka.GroupCoordinatorNotAvailableError(),
    kafka.UnknownTopicOrPartitionError(),
    kafka.ProducerClosed(),
    # PostgreSQL
    asyncpg.PostgresConnectionError(),
    asyncpg.ConnectionDoesNotExistError(),
    asyncpg.CannotConnectNowError(),
    asyncpg.AdminShutdownError(),
    asyncpg.CrashShutdownError(),
    asyncpg.TooManyConnectionsError(),
    asyncpg.DiskFullError(),
    postgres_internal_error("mdzeroextend"),  # a quota
    asyncpg.SerializationError(),
    asyncpg.DeadlockDetectedError(),
    asyncpg.LockNotAvailableError(),
    asyncpg.IdleInTransactionSessionTimeoutError(),
    asyncpg.QueryCanceledError(),
    asyncpg.ReadOnlySQLTransactionError(),
    asyncpg.InvalidPasswordError(),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InterfaceError("the underlying connection is closed"),
    asyncpg.InterfaceError("pool is closing"),
    asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    # Redis
    redis.exceptions.ConnectionError(),
    redis.exceptions.TimeoutError(),
    redis.exceptions.BusyLoadingError(),
    redis.exceptions.ReadOnlyError(),
    redis.exceptions.OutOfMemoryError(),
    redis.exceptions.MasterDownError("MASTERDOWN"),
    redis.exceptions.ClusterDownError("CLUSTERDOWN"),
    redis.exceptions.AuthenticationError(),
    redis.exceptions.NoScriptError(),
    redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it is not able to"),
    redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    redis.exceptions.ResponseError(
        "Command # 2 (EVALSHA …) of pipeline caused error: BUSY Redis is busy running a script."
    ),
]

BUGS: list[BaseException] = [
    KeyError("x"),
    ValueError("x"),
    AssertionError(),
    InvalidRecord("schema", "x"),
    asyncio.CancelledError(),
    FileNotFoundError(2, "No such file or directory", "template.html"),
    PermissionError(13, "Permission denied", "/etc/secret"),
    kafka.KafkaError(),
    kafka.MessageSizeTooLargeError(),
    kafka.TopicAuthorizationFailedError(),
    kafka.IllegalStateError(),
    kafka.CommitFailedError(),
    asyncpg.UndefinedTableError(),
    asyncpg.InsufficientPrivilegeError(),
    asyncpg.PostgresSyntaxError(),
    postgres_internal_error("ExecEvalExpr"),
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    redis.exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    redis.exceptions.DataError(),
]


def row_policy_error() -> asyncpg.PostgresError:
    """Row-level security, as the server sends it: the same code as a missing privilege."""
    told = {"S": "ERROR", "V": "ERROR", "C": "42501", "M": "new row violates", "R": "ExecWithCheckOptions"}
    return asyncpg.PostgresError.new(told)


ABOUT_THE_DATA: list[BaseException] = [
    asyncpg.UniqueViolationError(),
    asyncpg.CheckViolationError(),
    asyncpg.NotNullViolationError(),
    asyncpg.ForeignKeyViolationError(),
    asyncpg.ExclusionViolationError(),
    asyncpg.DataError("x"),
    asyncpg.NumericValueOutOfRangeError(),
    asyncpg.StringDataRightTruncationError(),
    asyncpg.CharacterNotInRepertoireError(),
    asyncpg.UntranslatableCharacterError(),
    asyncpg.DatetimeFieldOverflowError(),
    asyncpg.ProgramLimitExceededError(),
    asyncpg.CardinalityViolationError(),
    asyncpg.WithCheckOptionViolationError(),
    asyncpg.RaiseError(),
    asyncpg.AssertError(),
    asyncpg.DataCorruptedError(),
    asyncpg.IndexCorruptedError(),
    row_policy_error(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_waiting_can_help(error: BaseException) -> None:
    assert is_transient(error)
    assert not is_about_the_data(error)


@pytest.mark.parametrize("error", ABOUT_THE_DATA, ids=repr)
def test_waiting_cannot_help_and_leaving_out_what_is_refused_can(error: BaseException) -> None:
    assert is_about_the_data(error)
    assert not is_transient(error)


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_neither_waiting_nor_leaving_out_a_record_can_help(error: BaseException) -> None:
    assert not is_transient(error)
    assert not is_about_the_data(error)


def test_a_collision_passes_by_itself_at_first() -> None:
    assert is_transient(Collision("another verify wrote to this lane"))
    assert not is_about_the_data(Collision("another verify wrote to this lane"))


def test_an_error_of_postgresql_is_named_without_the_values_that_it_repeats() -> None:
    error = asyncpg.PostgresError.new(
        {
            "S": "ERROR",
            "C": "23505",
            "M": 'duplicate key value violates unique constraint "ledger_event"',
            "D": "Key (email)=(robin@mail.example) already exists.",
            "n": "ledger_event",
            "t": "ledger",
        }
    )
    assert without_content(error) == "UniqueViolationError, SQLSTATE 23505, constraint ledger_event, table ledger"
    assert without_content(TypeError("robin@mail.example")) == "TypeError"


def test_to_set_nothing_aside_would_be_tried_for_ever_and_is_refused() -> None:
    with pytest.raises(ValueError, match="without a record"):
        SetAside({})


def test_a_file_of_ours_that_is_missing_is_a_bug_and_not_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failure:
        (tmp_path / "template.html").read_text()
    assert not is_transient(failure.value)


async def test_a_unix_socket_that_is_missing_is_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failure:
        await asyncio.open_unix_connection(str(tmp_path / "socket"))
    assert is_transient(failure.value)


async def test_a_port_where_nobody_listens_is_a_server_that_is_away() -> None:
    with pytest.raises(OSError, match="1") as failure:
        await asyncio.open_connection("localhost", 1)
    assert is_transient(failure.value)


def test_an_invalid_record_says_its_reason_and_where() -> None:
    error = InvalidRecord("schema", "email: is missing")
    assert (error.reason, error.detail, str(error)) == ("schema", "email: is missing", "schema: email: is missing")


@pytest.mark.parametrize(
    ("driver", "error"),
    [
        ("aiokafka.errors", "KafkaConnectionError()"),
        ("asyncpg", "CannotConnectNowError()"),
        ("redis.exceptions", "BusyLoadingError()"),
    ],
)
def test_no_part_of_a_process_has_to_register_what_the_errors_of_its_driver_mean(driver: str, error: str) -> None:
    """A process that uses the driver alone: what decides about its errors is found."""
    program = (
        f"from shared.runtime.failures import is_transient\nimport {driver}\nassert is_transient({driver}.{error})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
