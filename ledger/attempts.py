"""How wrong PINs are counted and when that locks: one rule for staff PINs and for terminals."""

from datetime import datetime, timedelta

import msgspec

from ledger.errors import Rejected


class LockRule(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant's limits: how many wrong PINs in a row lock, and for how many minutes."""

    failed_attempts_max: int
    lockout_minutes: int


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """Wrong PINs in a row, and until when entry is locked because of them."""

    failed: int = 0
    locked_until: datetime | None = None

    def after_failure(self, now: datetime, rule: LockRule) -> "Attempts":
        """Counts one more wrong PIN; a lock whose time is over counts as none."""
        failed = 1 if self.locked_until is not None else self.failed + 1
        if failed < rule.failed_attempts_max:
            return Attempts(failed=failed)
        return Attempts(failed=failed, locked_until=now + timedelta(minutes=rule.lockout_minutes))

    def is_locked(self, now: datetime) -> bool:
        """Whether no PIN is taken at that instant."""
        return self.locked_until is not None and now < self.locked_until

    def refuse_if_locked(self, now: datetime) -> None:
        """Raises `pin_locked` while the lock lasts, whatever PIN was given."""
        if self.locked_until is not None and self.is_locked(now):
            raise Rejected("pin_locked", locked_until=rfc3339(self.locked_until))


def rfc3339(moment: datetime) -> str:
    """An instant as it stands in answers and problems: UTC, with a `Z`."""
    return moment.isoformat().replace("+00:00", "Z")
