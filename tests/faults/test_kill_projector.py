"""The projector killed with -9 in mid-batch loses nothing and doubles nothing.

FAULT_PROJECTOR_ROUNDS makes it as long as one likes; `python -m tests.faults.kill_projector 50` prints what came of it.
"""

import asyncio
import os

import pytest

from tests.faults.kill_projector import ROUNDS, kill

KILLS = int(os.environ.get("FAULT_PROJECTOR_ROUNDS", ROUNDS))


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_projector_killed_in_mid_batch_leaves_every_model_as_the_log_has_it(database_url: str) -> None:
    killed = asyncio.run(kill(database_url, KILLS, seed=KILLS))
    print(f"\n{killed}")
    assert killed.in_mid_batch == KILLS
    assert killed.rows > 0
    assert (killed.differing, killed.examples) == (0, ())
