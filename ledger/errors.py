"""The two ways in which the ledger says no: for a reason of business, or for want of a part it needs."""

from collections.abc import Mapping

Fact = str | int | bool | None


class Rejected(Exception):
    """A rule refused a command; nothing of what it asked for was recorded, at most that it was refused.

    `code` is stable, in snake_case, and listed with its meaning in `api.problems`; `facts` are values that a
    program can act on (`next_stamp_available_at` in RFC 3339, `points_missing` in points).
    """

    def __init__(self, code: str, **facts: Fact) -> None:
        super().__init__(code)
        self.code = code
        self.facts: Mapping[str, Fact] = facts


class Unavailable(Exception):
    """The log cannot be reached or is too busy now; the same command with the same key may be sent again.

    `retry_after_seconds` says when that is worth trying.
    """

    def __init__(self, reason: str, retry_after_seconds: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
