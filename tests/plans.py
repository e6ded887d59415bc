"""What the database did to answer a question, by its own plan: how much of each growing table it looked at."""

from collections.abc import Iterator
from typing import Any, NamedTuple

GROWING = frozenset({"events", "claims", "subject_keys", "snapshots", "cards", "transactions", "search_terms"})
ROWS_FREE, ROWS_FOR_EACH = 200, 8
"""How many rows may be looked at for nothing, and for each row of the answer."""

BLOCKS_FREE, BLOCKS_FOR_EACH = 50, 4
"""An index that is walked past what its condition does not name tells of no rows, but of the blocks that it took."""

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON)"


class Scan(NamedTuple):
    """One look at a table: how many rows of it were seen, wanted or not, and how many blocks were read for that."""

    table: str
    kind: str
    rows: int
    blocks: int


def scans(node: dict[str, Any]) -> Iterator[Scan]:
    """The scans of tables within a plan that was carried out."""
    if "Relation Name" in node:
        removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        seen = round((node["Actual Rows"] + removed) * node["Actual Loops"])
        blocks = node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0)
        yield Scan(node["Relation Name"], node["Node Type"], seen, blocks)
    for inner in node.get("Plans", ()):
        yield from scans(inner)


def too_much(plan: dict[str, Any], answered: int) -> list[Scan]:
    """The scans of growing tables that looked at more than so many rows of an answer can need."""
    rows, blocks = ROWS_FREE + ROWS_FOR_EACH * answered, BLOCKS_FREE + BLOCKS_FOR_EACH * answered
    return [
        scan
        for scan in scans(plan)
        if scan.table in GROWING and (scan.kind == "Seq Scan" or scan.rows > rows or scan.blocks > blocks)
    ]


def answered(plan: dict[str, Any]) -> int:
    """How many rows a question was answered with."""
    return int(plan["Actual Rows"])
