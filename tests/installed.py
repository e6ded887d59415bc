"""`loyalty` as an operator has it: real processes on a data folder of their own, all of them gone when a block ends."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import psycopg

from ledger.store.codec import StoredEnvelope
from loyalty.embedded import find

ROOT = Path(__file__).parents[1]
LOYALTY = [sys.executable, "-m", "loyalty"]
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
STORE = "/api/v1/store/loyalty"

_envelopes = msgspec.json.Decoder(StoredEnvelope)


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS_MAX) -> None:
    """Waits for a condition, a limited time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def as_user(uid: int) -> list[str]:
    """What runs a command as an ordinary user, who may read wherever root has installed the interpreter."""
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *reading]


class Up:
    """A `loyalty up` or `loyalty serve` that was started."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, data: Path) -> None:
        self.process = process
        self.data = data
        self._output = output
        self._http = httpx.Client(verify=False, timeout=30, headers={"Connection": "close"})  # noqa: S501 plain HTTP

    @property
    def printed(self) -> str:
        """Everything it has said so far."""
        return self._output.read_text()

    @property
    def base_url(self) -> str:
        """The address that it printed."""
        return self.printed.rpartition("API at ")[2].partition(",")[0]

    @property
    def demo(self) -> dict[str, str]:
        """What is in demo.json."""
        known: dict[str, str] = json.loads((self.data / "demo.json").read_text())
        return known

    def wait_until_it_answers(self) -> None:
        """Waits until the API is ready."""
        wait_until(lambda: "API at " in self.printed or self.process.poll() is not None, "it said where it is")
        assert self.process.poll() is None, self.printed
        wait_until(self.is_ready, "it was ready")

    def is_ready(self) -> bool:
        """Whether the API answers and can do its work."""
        with contextlib.suppress(httpx.TransportError):
            return self._http.get(f"{self.base_url}/health/ready").status_code == 200
        return False

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, key: str | None = None
    ) -> httpx.Response:
        """One request; as the demo's till unless a token is given, `""` for none."""
        token = self.demo["terminal_key"] if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": key} if key is not None else {}
        return self._http.request(method, self.base_url + path, json=body, headers=headers)

    def earn(self, cents: int, *, key: str | None = None, **other: Any) -> httpx.Response:
        """A purchase on the demo's card."""
        body = {"card_number": self.demo["card_number"], "purchase_amount_cents": cents, "staff_pin": "1234"} | other
        return self.ask("POST", f"{STORE}/points", body, key=key or str(uuid4()))

    def sign_in(self, email: str, password: str) -> httpx.Response:
        """Asks for a token."""
        return self.ask("POST", "/api/v1/auth/token", {"email": email, "password": password}, token="")

    def manager(self) -> str:
        """A token of the demo's manager."""
        answer = self.sign_in(self.demo["manager_email"], self.demo["manager_password"])
        return str(answer.json()["access_token"])

    def signal_all(self, number: signal.Signals) -> int:
        """Sends a signal as the terminal does, to the whole process group, and waits for the end."""
        os.killpg(self.process.pid, number)
        return self.process.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        """Ends it, and nothing else, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Asks it to stop if it still runs, and lets go of everything."""
        self._http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()


class Installation:
    """A data folder and the commands on it, run as user `uid` if one is given."""

    def __init__(self, folder: Path, uid: int | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._loyalty = LOYALTY if uid is None else [*as_user(uid), *LOYALTY]

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        """This process's environment with the settings of this installation and no others."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("LOYALTY_")}
        own = {"LOYALTY_DATA_DIR": str(self.data), "LOYALTY_PORT": "0", "HOME": str(self.folder)}
        return others | own | {"PYTHONDONTWRITEBYTECODE": "1"} | variables

    def run(self, *arguments: str | Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [*self._loyalty, *map(str, arguments)],
            cwd=ROOT,
            env=self.environment(variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
        )

    @contextlib.contextmanager
    def start(self, *arguments: str | Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Starts a command that is gone when the block ends; what it says is in `output(its pid)`."""
        draft = self.folder / f"{uuid4()}.log"
        with draft.open("wb") as output:
            process = subprocess.Popen(
                [*self._loyalty, *map(str, arguments)],
                cwd=ROOT,
                env=self.environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        draft.rename(self.output(process.pid))
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def output(self, pid: int) -> Path:
        """Where a started command's words are."""
        return self.folder / f"{pid}.log"

    @contextlib.contextmanager
    def up(self, *arguments: str, command: str = "up", wait: bool = True, **variables: str) -> Iterator[Up]:
        """`loyalty up`, which answers when the block begins and is stopped when it ends."""
        with self.start(command, *arguments, **variables) as process:
            up = Up(process, self.output(process.pid), self.data)
            try:
                if wait:
                    up.wait_until_it_answers()
                yield up
            finally:
                up.close()

    def processes(self, *words: str) -> list[int]:
        """What runs for this installation: its commands, and the servers in its folder; those with `words` in them."""
        variable = b"LOYALTY_DATA_DIR=" + bytes(self.data)
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                ours = (entry / "cwd").readlink().is_relative_to(self.data)
                if ours or variable in (entry / "environ").read_bytes().split(b"\0"):
                    found += [int(entry.name)] * all(word in command for word in words)
        return found

    def api(self) -> list[int]:
        """The API processes of `up`."""
        return self.processes("loyalty serve --fd")

    @property
    def database_url(self) -> str:
        """Where its embedded database is."""
        servers = find(self.data)
        assert servers is not None, "its servers run"
        return servers.database_url

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Asks its database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def events(self, name: str) -> list[StoredEnvelope]:
        """All events of that stored name, as the log has them."""
        rows = self.rows("SELECT state FROM events WHERE topic LIKE %s ORDER BY notification_id", f"{name}.%")
        return [_envelopes.decode(state) for (state,) in rows]

    def data_of(self, name: str) -> list[dict[str, Any]]:
        """What those events say."""
        return [msgspec.json.decode(event.data) for event in self.events(name)]

    def clean(self) -> None:
        """Ends whatever is left and removes the folder."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def installed(uid: int | None = None) -> Iterator[Installation]:
    """An installation on an empty folder that others may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="loyalty-up-", dir="/tmp")).resolve()
    folder.chmod(0o755)
    if uid is not None:
        os.chown(folder, uid, uid)
    installation = Installation(folder, uid)
    try:
        yield installation
    finally:
        installation.clean()
