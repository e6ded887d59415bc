"""The supervisor, with real processes that die, dawdle and are orphaned."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loyalty.supervisor import Child, Supervisor

ROOT = Path(__file__).parents[2]

# Every child notes its process id first, so that tests can wait for it, count starts and look for survivors.
NOTE = "import os, signal, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
PATIENT = NOTE + "time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PATIENT
SHORT_LIVED = NOTE + "sys.exit(3)"
POLITE = (
    NOTE
    + """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    time.sleep(600)
finally:
    open(sys.argv[1] + '.done', 'w').close()
"""
)
PARENT_OF_STUBBORN = (
    NOTE
    + """
import subprocess
subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]])
time.sleep(0.5)
sys.exit(3)
"""
)
WATCHFUL = "from loyalty.supervisor import exit_with_parent; exit_with_parent(kill_after_seconds=0.5)\n"

SUPERVISE = """
import sys
from loyalty.supervisor import Child, Supervisor
codes, notes, grace = sys.argv[3:], sys.argv[1], float(sys.argv[2])
children = [Child(f"child{n}", [sys.executable, "-c", code, notes + str(n)]) for n, code in enumerate(codes)]
sys.exit(Supervisor(children, grace_seconds=grace).run())
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Supervised:
    """A supervisor in a process of its own, and the notes of its children."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "notes"
        self.process: subprocess.Popen[str] | None = None

    def start(self, *codes: str, grace: float = 20.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", SUPERVISE, str(self._notes), str(grace), *codes]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for number in range(len(codes)):
            self.wait_for(number, starts=1)
        return self.process

    def pids(self, number: int) -> list[int]:
        notes = self._notes.with_name(f"notes{number}")
        return [int(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def wait_for(self, number: int, starts: int) -> list[int]:
        deadline = time.monotonic() + 30
        while len(pids := self.pids(number)) < starts:
            assert time.monotonic() < deadline, f"child {number} has started {len(pids)} times only"
            time.sleep(0.02)
        return pids

    def survivors(self) -> list[int]:
        noted = [int(line) for notes in self._notes.parent.glob("notes?") for line in notes.read_text().split()]
        return [pid for pid in noted if alive(pid)]

    def wait_until_none_survives(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while survivors := self.survivors():
            assert time.monotonic() < deadline, f"{survivors} live on"
            time.sleep(0.02)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    supervised = Supervised(tmp_path)
    yield supervised
    process = supervised.process
    if process is not None and process.poll() is None:
        # Asked, not killed: only the supervisor knows the children that have not noted themselves yet.
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    for pid in supervised.survivors():
        os.kill(pid, signal.SIGKILL)
    if process is not None:
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_children(supervised: Supervised, tmp_path: Path, number: signal.Signals) -> None:
    process = supervised.start(PATIENT, POLITE)
    # As the terminal does, to everything in the supervisor's process group.
    os.killpg(process.pid, number)
    assert process.wait(10) == 0
    assert supervised.survivors() == []
    assert (tmp_path / "notes1.done").exists()


@pytest.mark.slow
def test_a_child_that_dies_is_started_again_ever_more_slowly(supervised: Supervised) -> None:
    process = supervised.start(PATIENT, SHORT_LIVED)
    began = time.monotonic()
    supervised.wait_for(1, starts=4)
    assert 3.0 < time.monotonic() - began < 10.0
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert [line.rpartition(" in ")[2] for line in errors.splitlines()][:3] == ["0.5 s", "1 s", "2 s"]
    assert "child1 ended (exit code 3)" in errors
    assert len(supervised.pids(0)) == 1


def test_a_child_killed_from_outside_is_started_again(supervised: Supervised) -> None:
    process = supervised.start(PATIENT)
    os.kill(supervised.pids(0)[0], signal.SIGKILL)
    supervised.wait_for(0, starts=2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert "child0 ended (SIGKILL)" in errors


def test_what_a_dead_child_leaves_behind_goes_too(supervised: Supervised) -> None:
    code = PARENT_OF_STUBBORN.replace("sys.argv[2]", repr(STUBBORN))
    supervised.start(code)
    # Parent, its stubborn child, and the parent once more.
    left = supervised.wait_for(0, starts=3)[1]
    assert not alive(left)


def test_a_stubborn_child_is_killed_after_the_grace_period(supervised: Supervised) -> None:
    process = supervised.start(STUBBORN, grace=1.0)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert 0.9 < time.monotonic() - asked < 5
    assert supervised.survivors() == []


def test_a_second_ctrl_c_hurries(supervised: Supervised) -> None:
    process = supervised.start(STUBBORN, grace=60.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert supervised.survivors() == []


@pytest.mark.parametrize("code", [PATIENT, STUBBORN], ids=["patient", "stubborn"])
def test_children_go_with_a_killed_supervisor(supervised: Supervised, code: str) -> None:
    process = supervised.start(WATCHFUL + code, WATCHFUL + code)
    process.kill()
    process.wait()
    supervised.wait_until_none_survives(5)


def test_children_share_a_listening_socket() -> None:
    serve = (
        "import os, socket, sys\n"
        "listening = socket.socket(fileno=int(sys.argv[1]))\n"
        "while True:\n"
        "    connection, _ = listening.accept()\n"
        "    connection.sendall(os.environ['ANSWER'].encode())\n"
        "    connection.close()\n"
    )
    supervise = (
        "import socket, sys\n"
        "from loyalty.supervisor import Child, Supervisor\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "command = [sys.executable, '-c', sys.argv[1], str(listening.fileno())]\n"
        "print(listening.getsockname()[1], flush=True)\n"
        "children = [Child(n, command, {'ANSWER': n}, [listening.fileno()]) for n in ('one', 'two')]\n"
        "sys.exit(Supervisor(children).run())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", supervise, serve], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        answers: set[bytes] = set()
        deadline = time.monotonic() + 20
        while answers != {b"one", b"two"} and time.monotonic() < deadline:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                answers.add(client.recv(16))
        process.terminate()
    assert answers == {b"one", b"two"}
    assert process.returncode == 0


def test_a_command_that_cannot_be_run_stops_the_rest(tmp_path: Path) -> None:
    note = tmp_path / "notes0"
    children = [Child("first", [sys.executable, "-c", PATIENT, str(note)]), Child("none", [str(tmp_path / "none")])]
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError):
        Supervisor(children).run()
    assert signal.getsignal(signal.SIGTERM) is handler
