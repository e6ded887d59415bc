"""Runs several processes in the foreground as one: starts them, again when they die, and stops them together.

The children write to the terminal themselves. Each has a session of its own, so the terminal's Ctrl-C reaches
only the supervisor, which then stops them all. Standard input of every child is a pipe whose other end only
the supervisor holds: when the supervisor is gone, even by kill -9, the pipe ends, and a child that has called
`exit_with_parent` goes too.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

GRACE_SECONDS = 25.0
"""How long children may take to stop before they are killed."""

FIRST_DELAY_SECONDS = 0.5
"""How long a child that died stays down the first time; doubled each time it dies again."""

LONGEST_DELAY_SECONDS = 2.0
"""The delay stops growing here, so that a child killed time and again still answers again within seconds; one that
lived this long starts again with the first delay."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Child:
    """A process to keep running.

    `name` is for the operator. `environment` is all that the child's will hold (None: the supervisor's own).
    `pass_fds` are file descriptors it inherits under the same numbers, such as a listening socket shared by
    several children.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = None
    pass_fds: Sequence[int] = ()


class Supervisor:
    """Keeps `children` running until SIGINT, SIGTERM or SIGHUP; to be used in the main thread, once."""

    def __init__(self, children: Sequence[Child], grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._stop_requests = 0
        self._lifeline, self._lifeline_held = os.pipe()
        self._runs = [_Run(child, self._lifeline) for child in children]

    def run(self) -> int:
        """Runs until a signal asks for the end, then stops all children; answers 0, the exit code.

        Children get SIGTERM and `grace_seconds`, then SIGKILL; a second signal kills them at once. The signal
        handlers of before are back when this returns. Raises OSError, with all children stopped, when a
        command cannot be run.
        """
        handlers = {number: signal.signal(number, self._on_signal) for number in _stop_signals()}
        try:
            for run in self._runs:
                run.start()
            while not self._stop_requests:
                for run in self._runs:
                    run.keep_up()
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(self._lifeline)
            os.close(self._lifeline_held)
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _stop(self) -> None:
        for run in self._runs:
            run.ask_to_stop()
        deadline = time.monotonic() + self._grace_seconds
        while any(run.is_alive() for run in self._runs):
            if self._stop_requests > 1 or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        for run in self._runs:
            run.kill()


class _Run:
    """One child through its deaths."""

    def __init__(self, child: Child, lifeline: int) -> None:
        self._child = child
        self._lifeline = lifeline
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0
        self._delay = FIRST_DELAY_SECONDS

    def start(self) -> None:
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(
            self._child.command,
            env=self._child.environment,
            stdin=self._lifeline,
            pass_fds=self._child.pass_fds,
            start_new_session=True,
        )

    def keep_up(self) -> None:
        """Notices a death and starts the child again once its delay is over."""
        if self._process is not None and self._process.poll() is not None:
            self._bury(self._process)
        elif self._process is None and time.monotonic() >= self._start_again_at:
            self.start()

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            _kill_group(self._process)
            self._process.wait()

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        _kill_group(process)
        self._process = None
        now = time.monotonic()
        if now - self._started_at > LONGEST_DELAY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        self._start_again_at = now + self._delay
        print(
            f"loyalty: {self._child.name} ended ({_ending(process.returncode)}), "
            f"starting it again in {self._delay:g} s",
            file=sys.stderr,
            flush=True,
        )
        self._delay = min(self._delay * 2, LONGEST_DELAY_SECONDS)


def exit_with_parent(fd: int = 0, kill_after_seconds: float = 5.0) -> None:
    """To be called early in a child of a Supervisor: ends this process when the supervisor is gone.

    Watches `fd` (standard input, where the supervisor's pipe is) in a daemon thread. When it ends, this
    process gets SIGTERM, and `kill_after_seconds` later SIGKILL, with its own children if it leads its
    process group. Not for a process started by hand or by an init system, whose standard input may end at any
    time.
    """

    def watch() -> None:
        while os.read(fd, 64):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(kill_after_seconds)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


def interrupt_on_stop_signals() -> None:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.

    For what runs before and after `Supervisor.run` in the same process: `with` and `finally` then clean up,
    whichever way the end is asked for.
    """
    for number in _stop_signals():
        signal.signal(number, signal.default_int_handler)


def _stop_signals() -> list[signal.Signals]:
    signals = [signal.SIGINT, signal.SIGTERM]
    # Under nohup the end of the terminal is to be survived.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a child and what it may have left in its process group, such as workers of a dead parent."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
