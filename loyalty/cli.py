"""The `loyalty` command: starts the service and operates it."""

import json
import os
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import click
import msgspec
import uvloop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from api.parts import Parts, keyring_from, parts_from
from ledger.actor import OPERATOR, PLATFORM, Caller, Role
from ledger.commands import OpenAccount
from ledger.errors import Rejected, Unavailable
from ledger.secrecy import WrongSecret
from ledger.settings import Settings
from loyalty.demo import demo
from loyalty.embedded import EmbeddedServerError, EmbeddedServers
from loyalty.export import export_events
from loyalty.garbage import OBJECTS_OF_BATCHES, collect_less
from loyalty.installation import database_of, installation, running
from loyalty.rebuilding import line_about, rebuild_with_bar
from loyalty.records import Format, format_of
from loyalty.supervisor import Child, Supervisor, exit_with_parent, interrupt_on_stop_signals
from migrations import MigrationError, migrate, missing
from projections.feed import Feed
from projections.models import MODELS
from schemas.kinds import Email, Name
from workers.expire_points import Expired, cards_to_look_at, expire_points

T = TypeVar("T")
GRACE_SECONDS = 20
PASSWORD_CHARACTERS_MIN = 10
DAY = timedelta(days=1)
LOOK_AHEAD_MAX = timedelta(days=36_500)


def with_parts(settings: Settings, work: Callable[[Parts], Awaitable[T]]) -> T:
    """Runs some work with the ledger open; ends the command with a message where the database does not answer."""

    async def run() -> T:
        parts = parts_from(settings)
        try:
            await parts.ledger.open()
            return await work(parts)
        finally:
            await parts.ledger.close()

    refuse_unmigrated(settings)
    try:
        return uvloop.run(run())
    except WrongSecret as error:
        raise click.ClickException(str(error)) from None
    except Unavailable:
        raise click.ClickException(
            "The database does not answer. Nothing is half done: run the same command again."
        ) from None


def refuse_unmigrated(settings: Settings) -> None:
    """Ends the command with a message unless the database has this release's tables."""
    try:
        names = missing(database_of(settings))
    except MigrationError as error:
        raise click.ClickException(str(error)) from None
    if names:
        raise click.ClickException(f"The database lacks {', '.join(names)}: run `loyalty migrate` first.")


async def nothing(_: Parts) -> None:
    """Opens the ledger, which checks its secrets and that the database answers, and closes it."""


@click.group()
def main() -> None:
    """Stamp cards and points on a ledger."""


@main.command()
@click.option("--demo", "with_demo", is_flag=True, help="Make a merchant to try things with, and demo.json.")
def up(with_demo: bool) -> None:
    """Run everything in the foreground: servers, migrations, API, read models. Ctrl-C stops all of it."""
    interrupt_on_stop_signals()
    settings = installation()
    assert settings.data_dir is not None, "an installation has a data folder"
    embedded = EmbeddedServers(settings.data_dir) if needs_embedded(settings) else None
    try:
        if embedded is not None:
            servers = embedded.start()
            settings = msgspec.structs.replace(
                settings,
                database_url=settings.database_url or servers.database_url,
                redis_url=settings.redis_url or servers.redis_url,
            )
        migrate(database_of(settings))
        sys.exit(run_processes(settings, with_demo=with_demo))
    except (EmbeddedServerError, MigrationError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        if embedded is not None:
            embedded.stop()


def needs_embedded(settings: Settings) -> bool:
    """Whether a server is not configured, and so runs out of its package."""
    return settings.database_url is None or settings.redis_url is None


def run_processes(settings: Settings, *, with_demo: bool) -> int:
    """Runs the API's processes over one listening socket, and the feed, until asked to stop."""
    with listening(settings) as listener:
        settings = msgspec.structs.replace(settings, port=listener.getsockname()[1])
        if with_demo:
            show_demo(settings)
        command = [sys.executable, "-m", "loyalty", "serve", "--fd", str(listener.fileno())]
        environment = environment_of(settings)
        children = [
            Child(f"api-{number + 1}", command, environment, (listener.fileno(),)) for number in range(settings.workers)
        ]
        feeding = [sys.executable, "-m", "loyalty", "project", "--beside"]
        children.append(Child("projections", feeding, environment))
        click.echo(f"API at {settings.base_url}, its documentation at /docs. Ctrl-C stops.")
        return Supervisor(children).run()


def listening(settings: Settings) -> socket.socket:
    """The socket that all API processes share."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Set LOYALTY_PORT to another port."
        ) from None


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a child these very settings."""
    ours = {
        f"LOYALTY_{name.upper()}": str(value)
        for name in settings.__struct_fields__
        if (value := getattr(settings, name)) is not None
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("LOYALTY_")} | ours


def show_demo(settings: Settings) -> None:
    """Makes the demo merchant or finds it, and says where its credentials are."""
    if settings.environment == "production":
        raise click.ClickException("There is no demo in production.")
    assert settings.data_dir is not None, "an installation has a data folder"
    path = settings.data_dir / "demo.json"
    credentials = with_parts(settings, lambda parts: demo(parts, path))
    click.echo(f"Demo credentials in {path}:")
    for name, value in credentials.items():
        click.echo(f"  {name:<18} {value}")


@main.command("demo-credentials")
def demo_credentials() -> None:
    """Print the demo's credentials as shell variables, for `eval`."""
    settings = installation()
    assert settings.data_dir is not None, "an installation has a data folder"
    path = settings.data_dir / "demo.json"
    if not path.exists():
        raise click.ClickException(f"There is no {path}. Run `loyalty up --demo` first.")
    for name, value in json.loads(path.read_text()).items():
        click.echo(f"{name.upper()}={shlex.quote(str(value))}")


@main.command()
@click.option("--fd", type=int, help="A listening socket that was inherited; else listens by itself.")
def serve(fd: int | None) -> None:
    """Run one API process."""
    import uvicorn

    from api.app import create_app
    from loyalty.serving import JoiningProtocol

    if fd is not None:
        exit_with_parent()
        listener = socket.socket(fileno=fd)
        settings = running(installation())
    else:
        settings = running(installation())
        listener = listening(settings)
        settings = msgspec.structs.replace(settings, port=listener.getsockname()[1])
        click.echo(f"API at {settings.base_url}, its documentation at /docs. Ctrl-C stops.")
    with_parts(settings, nothing)
    config = uvicorn.Config(
        create_app(parts_from(settings)),
        loop="uvloop",
        http=JoiningProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        proxy_headers=False,
    )
    collect_less()
    uvicorn.Server(config).run(sockets=[listener])


@main.command()
@click.option("--beside", is_flag=True, help="Goes when the process that started it goes.")
def project(beside: bool) -> None:
    """Keep the read models told: run one, or several, of which one works and the others stand by."""
    if beside:
        exit_with_parent()
    interrupt_on_stop_signals()
    settings = running(installation())
    # The feed needs none of the parts; they are opened to refuse wrong secrets before anything is told with them.
    with_parts(settings, nothing)
    collect_less(OBJECTS_OF_BATCHES)
    with suppress(KeyboardInterrupt):
        uvloop.run(Feed(database_of(settings), keyring_from(settings)).follow())


@main.command("rebuild")
@click.argument("name", required=False, type=click.Choice([model.name for model in MODELS]))
@click.option("--check", is_flag=True, help="Only compare: take nothing over, and exit with 1 where rows differ.")
def rebuild_read_models(name: str | None, check: bool) -> None:
    """Build a read model anew from the log, or all of them, and say which rows were not as the log has them.

    What is built takes the place of what is read in one moment; reading and writing go on meanwhile. May be
    interrupted and run again at any time: it goes on from where it was.
    """
    interrupt_on_stop_signals()
    settings = running(installation())
    collect_less(OBJECTS_OF_BATCHES)

    # As in `project`, the parts are opened only to refuse wrong secrets.
    async def run(_: Parts) -> bool:
        found = await rebuild_with_bar(database_of(settings), keyring_from(settings), name, checks_only=check)
        for model, comparison in found.items():
            click.echo(line_about(model, comparison, checks_only=check))
        return any(comparison is not None and comparison.differing for comparison in found.values())

    try:
        differs = with_parts(settings, run)
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted. Run the same command again: it goes on from here.") from None
    if check and differs:
        sys.exit(1)


@main.command("migrate")
def migrate_database() -> None:
    """Bring the database's tables up to this release."""
    try:
        applied = migrate(database_of(running(installation())))
    except MigrationError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Applied: {', '.join(applied)}" if applied else "Nothing to do.")


@main.group()
def user() -> None:
    """Accounts with a password."""


@user.command("add")
@click.option("--email", required=True)
@click.option("--role", type=click.Choice(["admin", "manager", "auditor"]), required=True)
@click.option("--merchant", type=click.UUID, help="Whose account; admins, and auditors of everything, have none.")
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, help="Asked for if not given.")
def add_user(email: str, role: str, merchant: UUID | None, password: str) -> None:
    """Open an account."""
    if role == "manager" and merchant is None:
        raise click.UsageError("A manager's account needs --merchant.")
    if role == "admin" and merchant is not None:
        raise click.UsageError("An admin's account is of no merchant.")
    try:
        msgspec.convert(email, Email)
    except msgspec.ValidationError:
        raise click.UsageError(f"{email} is no e-mail address.") from None
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise click.UsageError(f"A password has at least {PASSWORD_CHARACTERS_MIN} characters.")
    caller = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=merchant or PLATFORM)
    command = OpenAccount(email=email, password=password, role=Role(role))
    try:
        with_parts(running(installation()), lambda parts: parts.ledger.handle(command, caller))
    except Rejected as refusal:
        raise click.ClickException(f"Refused: {refusal.code}") from None
    click.echo(f"{email} is {role} now.")


@main.command("expire")
@click.option(
    "--date",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Expire what was due by the end of that day (UTC); without it, what is due by now.",
)
@click.option("--dry-run", is_flag=True, help="Only count, also for days to come.")
def expire(day: datetime | None, dry_run: bool) -> None:
    """Expire points that are due; may be run late, again and twice at once."""

    async def run(parts: Parts) -> Expired:
        now = parts.clock.now()
        by = now if day is None else min(day.replace(tzinfo=UTC), now + LOOK_AHEAD_MAX) + DAY
        if by > now + DAY and not dry_run:
            raise click.UsageError("Points do not expire before their time; look ahead with --dry-run.")
        total = await cards_to_look_at(parts.ledger)
        with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as progress:
            task = progress.add_task("Looking at cards", total=total)
            return await expire_points(
                parts.ledger,
                by if dry_run else min(by, now),
                writes=not dry_run,
                tell=lambda so_far: progress.update(task, completed=so_far.looked_at),
            )

    expired = with_parts(running(installation()), run)
    verb = "would lose" if dry_run else "lost"
    click.echo(f"{expired.cards} of {expired.looked_at} cards {verb} {expired.points} points.")
    if expired.failed:
        raise click.ClickException(f"{expired.failed} cards could not be expired in time; run the same command again.")


@main.group("export")
def export() -> None:
    """Give out what is stored."""


@export.command("events")
@click.option("--merchant", type=click.UUID, help="Only this merchant's events.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events past this position.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file; one that an earlier export left is continued after its last whole line.",
)
def export_log(merchant: UUID | None, after: int, output: Path | None) -> None:
    """Write the log as JSON Lines, oldest first, with what was sealed still sealed. docs/log.md has the format."""
    collect_less()
    count = with_parts(running(installation()), lambda parts: export_events(parts.ledger.log, merchant, after, output))
    if output is not None:
        click.echo(f"{count} events were written to {output}.")


@main.group("import")
def import_() -> None:
    """Bring in what happened before."""
    collect_less()


@import_.command("purchases")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--store", required=True, help="Code of the store where the purchases were made.")
def import_purchases(file: Path, store: str) -> None:
    """Earn the purchases of a CSV file (customer_id,date,items,amount_cents); may be run again at any time."""
    from loyalty import purchases

    summary = with_parts(running(installation()), lambda parts: purchases.import_purchases(parts.ledger, file, store))
    click.echo(
        f"{summary.cards} cards, {summary.earnings} earnings, {summary.points} points;"
        f" {summary.known} purchases were there already."
    )
    for code, count in summary.refused.items():
        click.echo(f"{count} purchases refused: {code}")
    if summary.refused:
        sys.exit(1)


@import_.command("cards")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--store", required=True, help="Code of the store that the customers belong to.")
@click.option(
    "--source",
    required=True,
    help="Name of the system that they come from, the same for every file of it: whatever file and store names a"
    " customer of a source, they are brought to the merchant once.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice([each.value for each in Format]),
    help="How the file is written, where its name does not end in .csv or .jsonl.",
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="List bad lines in this CSV file.")
@click.option("--dry-run", is_flag=True, help="Check every line, also against the ledger, and import nothing.")
def import_cards(
    file: Path, store: str, source: str, file_format: str | None, report: Path | None, dry_run: bool
) -> None:
    """Bring customers and their balances from another system; may be run again at any time.

    FILE is CSV with a line of column names (comma or semicolon), or JSON Lines, in UTF-8. Only customer_id is needed;
    the others are card_number, qr_code, name, email, phone, locale, points, stamps, enrolled_at, last_activity_at and
    points_expire_at, which needs a program whose points end by date (expiry_policy earned, with
    points_expiration_days). Times are ISO 8601 with a zone, or a date: its first instant at the store. No value holds
    a line break.

    A customer comes once from each source, on a card of their own or onto the one that they have here. Good lines are
    imported even if others are bad; bad ones are listed with line, field and reason, and make the exit code 1.
    """
    from loyalty import cards

    try:
        msgspec.convert(source, Name)
    except msgspec.ValidationError:
        raise click.UsageError("--source is a name of 1 to 100 characters on one line.") from None
    if report is not None and report.exists() and report.samefile(file):
        raise click.UsageError("The report would replace the file that is to be imported.")
    chosen = Format(file_format) if file_format is not None else format_of(file)
    summary = with_parts(
        running(installation()),
        lambda parts: cards.import_cards(
            parts.ledger, file, store, file_format=chosen, source=source, report=report, dry_run=dry_run
        ),
    )
    ended = f" (of which {summary.ended} had ended already)" if summary.ended else ""
    click.echo(
        f"{'Nothing was written; this would be: ' if dry_run else ''}"
        f"{summary.imported} cards imported ({summary.onto_known_cards} of them onto cards that were here already)"
        f" with {summary.points} points{ended} and {summary.stamps} stamps;"
        f" {summary.known} imported before; {summary.bad} bad lines."
    )
    if summary.bad:
        sys.exit(1)
