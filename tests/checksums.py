"""Holds that what was once applied or stored never changes: migrations, examples of events, rows of read models.

`python -m tests.checksums` lists new files and refuses to touch what is listed; `--check` only looks. The
lists are in the format of sha256sum, with names relative to the list, so that `sha256sum -c` reads them too.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Listing:
    """A list of checksums and the files it must name."""

    path: Path
    pattern: str

    def listed(self) -> dict[str, str]:
        """What the list says: the digest of each name."""
        if not self.path.exists():
            return {}
        lines = self.path.read_text(encoding="utf-8").splitlines()
        pairs = [line.partition("  ") for line in lines]
        return {name: digest for digest, _, name in pairs}

    def found(self) -> dict[str, str]:
        """What is there: the digest of each name."""
        folder = self.path.parent
        files = sorted(path for path in folder.glob(self.pattern) if path.is_file() and path.name[0] != ".")
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def broken(self) -> list[str]:
        """Listed files that were changed or are gone."""
        found = self.found()
        return [
            f"{self.path.parent / name}: {'changed' if name in found else 'gone'}, but it is listed for good"
            for name, digest in self.listed().items()
            if found.get(name) != digest
        ]

    def unlisted(self) -> list[str]:
        """Files that are there and not listed."""
        listed = self.listed()
        return [name for name in self.found() if name not in listed]

    def append(self) -> list[str]:
        """Lists the new files and says which; only ever adds lines."""
        found = self.found()
        names = self.unlisted()
        if names:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.writelines(f"{found[name]}  {name}\n" for name in names)
        return names


def listings(root: Path = ROOT) -> list[Listing]:
    """Everything in the checkout that is listed."""
    return [
        Listing(root / "migrations" / "checksums.txt", "*.sql"),
        Listing(root / "schemas" / "examples" / "checksums.txt", "events/**/*"),
        Listing(root / "schemas" / "examples" / "projections" / "checksums.txt", "*.jsonl"),
    ]


def problems(root: Path = ROOT) -> list[str]:
    """What is wrong, one line each."""
    every = listings(root)
    broken = [line for listing in every for line in listing.broken()]
    new = [
        f"{listing.path.parent / name}: not listed; run `make checksums`"
        for listing in every
        for name in listing.unlisted()
    ]
    return broken + new


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Checks, or lists what is new unless something listed was changed."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m tests.checksums [--check]", file=sys.stderr)
        return 2
    every = listings(root)
    wrong = problems(root) if arguments else [line for listing in every for line in listing.broken()]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    if not arguments:
        for listing in every:
            for name in listing.append():
                print(f"listed {listing.path.parent.relative_to(root) / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
