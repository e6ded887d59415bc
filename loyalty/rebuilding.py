"""Building read models anew by hand: a bar while it goes on, then a line for each about what was found."""

from collections.abc import Sequence

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ledger.store.keys import Keyring
from ledger.store.names import UnknownEvent
from projections.models import MODELS
from projections.read_model import ReadModel, Untellable
from projections.rebuild import Comparison, Watcher, rebuild


class Rate(ProgressColumn):
    """How many events a second are applied."""

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} events/s" if speed is not None else "")


class Bar(Watcher):
    """Shows how far a rebuild is, and says what it waits for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def waits(self, name: str, why: str) -> None:
        """Says what is waited for."""
        self._say(f"{name} waits: {why}")

    def goes_on(self, name: str, position: int) -> None:
        """Says from where."""
        self._say(f"{name} goes on at position {position}")

    def reached(self, position: int, head: int) -> None:
        """Moves the bar; what was done before this run counts neither for the rate nor for the time that is left."""
        if self._task is None:
            self._task = self._progress.add_task("Telling the log", total=head, completed=0)
        self._progress.update(self._task, completed=position, total=head)

    def _say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)


async def rebuild_with_bar(
    database_url: str, keyring: Keyring, name: str | None, *, checks_only: bool
) -> dict[str, Comparison | None]:
    """Builds one model anew, or all of them in one pass over the log; tells by name what differed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        try:
            return await rebuild(database_url, keyring, named(name), watcher=Bar(progress), takes_over=not checks_only)
        except UnknownEvent as error:
            raise click.ClickException(
                f"The log holds the event {error}, which a newer release wrote: only that one can build what it needs."
            ) from None
        except Untellable as error:
            raise click.ClickException(f"Stopped: {error}.") from None


def named(name: str | None) -> Sequence[ReadModel]:
    """The model of that name, or all."""
    return [model for model in MODELS if name in (None, model.name)]


def line_about(name: str, found: Comparison | None, *, checks_only: bool) -> str:
    """What was found of a model, and what was done."""
    ended = "left as it is" if checks_only else "replaced"
    if found is None:
        return f"{name}: nothing of the same shape to compare with; {ended}."
    if not found.differing:
        return f"{name}: {found.rows:,} rows compared, none differs; {ended}."
    more = ", …" if found.differing > len(found.examples) else ""
    return (
        f"{name}: {found.rows:,} rows compared, {found.differing:,} differ; {ended}. {', '.join(found.examples)}{more}"
    )
