"""How often Python looks for what only circles keep alive."""

import gc

OBJECTS_OF_REQUESTS, OBJECTS_OF_BATCHES = 20_000, 1_000_000


def collect_less(objects: int = OBJECTS_OF_REQUESTS) -> None:
    """Has the garbage collector pass over what was made at the start, and look at the rest less often.

    Requests under way hold some thousands of objects, batches of the log some hundred thousands, and both leave almost
    no cycles. At the default of 700 new objects, a tenth of the process goes into finding none, and a third where a
    batch is looked through again and again.
    """
    gc.freeze()
    gc.set_threshold(objects)
