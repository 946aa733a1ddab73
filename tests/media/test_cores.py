"""How many processors this process may use."""

from __future__ import annotations

import os

from mmdata.media.cores import cores


def test_processors_that_are_taken_away_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == len(allowed)
