"""How much the fuzz tests try: `MMDATA_FUZZ=20`, as `make fuzz` sets it, is twenty times as much, with another seed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

TIMES = int(os.environ.get("MMDATA_FUZZ", "1"))
SEED = 1 if TIMES == 1 else int(time.time())


def draws(kind: str, count: int) -> Iterator[tuple[str, random.Random]]:
    """A name and a source of randomness for each of `count` inputs (times `TIMES`); the name alone makes it again."""
    for number in range(count * TIMES):
        name = f"{kind} seed {SEED} number {number}"
        yield name, random.Random(name)
