"""`make soak`: the road dies some thousands of times, and a table says of what.

    python -m tests.crash.soak --deaths 3000 --seed 1

It ends with exit code 1 at the first outcome that is not the undisturbed one, and names the way that led there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.crash.scenes import Deaths, make_scenes, pictures, survive
from tests.crash.zygote import Zygote

WAYS = {"killed": (False, False), "power cut": (True, False), "at a random time": (False, True)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill builds until there were so many deaths.")
    parser.add_argument("--deaths", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    total: Deaths = Deaths()
    table: Counter[tuple[str, str]] = Counter()
    roads: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, pictures() as url, Zygote() as zygote:
        scenes = make_scenes(Path(folder), url, zygote)
        for seed in itertools.count(wanted.seed):
            for scene, (way, (power, timed)) in itertools.product(scenes, WAYS.items()):
                before = total.total
                try:
                    survive(scene, zygote, seed, power=power, timed=timed, deaths=total)
                except AssertionError as error:
                    sys.stdout.write(f"FAILED after {total.total} deaths: {error}\n")
                    return 1
                table[scene.name, way] += total.total - before
                roads[scene.name, way] += 1
            sys.stdout.write(f"{total.total:,} deaths, {time.monotonic() - started:,.0f} s\n")
            sys.stdout.flush()
            if total.total >= wanted.deaths:
                break
    sys.stdout.write(f"\n{total.total:,} deaths on {roads.total():,} roads, seeds {wanted.seed} to {seed}; ")
    sys.stdout.write("each road ended in the release of an undisturbed run\n\n")
    for (name, way), count in sorted(table.items()):
        sys.stdout.write(f"{name:<36}{way:<20}{count:>7,} deaths on {roads[name, way]:>4,} roads\n")
    sys.stdout.write("\nthe next step would have been\n")
    for what, count in sorted(total.at.items(), key=lambda item: (-item[1], item[0])):
        sys.stdout.write(f"{count:>7,}  {what}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
