"""Reading by a pool: what takes too long is not tried again, and keeps nobody else from being answered."""

import asyncio

import psycopg
import pytest

from ledger.errors import Unavailable
from ledger.store.pool import Pool
from tests.running import running

LIMITS = "-c statement_timeout=1000 -c lock_timeout=500"
BUSY = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s AND state = 'active'"


@pytest.mark.parametrize("wait", ["pg_sleep(60)", "pg_advisory_lock(7)"], ids=["a slow statement", "a lock"])
@running
async def test_what_takes_too_long_is_not_asked_twice_and_others_are_answered(database_url: str, wait: str) -> None:
    pool = Pool(database_url, 2, LIMITS)
    await pool.open()
    try:
        with psycopg.connect(database_url, autocommit=True) as beside:
            beside.execute("CREATE SEQUENCE asked; SELECT pg_advisory_lock(7)")
            slow = asyncio.create_task(pool.rows(f"SELECT nextval('asked'), {wait}", {}))
            while not beside.execute(BUSY, ["SELECT nextval%"]).fetchall():
                await asyncio.sleep(0)
            assert await pool.rows("SELECT 1", {}) == [(1,)]
            with pytest.raises(Unavailable, match="takes too long"):
                await slow
            # A number that was drawn is not given back, whatever became of the statement.
            assert beside.execute("SELECT last_value FROM asked").fetchall() == [(1,)]
    finally:
        await pool.close()
