"""Trains a few steps, where one rank's reader never returns: `python -m tests.support.hanging_run RELEASE CONFIG OUT`.

The rank and the number of pieces that it reads before it hangs are in the environment, as HANGS and AFTER.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

from mmdata.errors import DataError
from training.config import TrainConfig
from training.data.batch_readers import PairReader
from training.run import train


def main() -> int:
    if os.environ.get("RANK", "0") == os.environ["HANGS"]:
        pieces, read = itertools.count(), PairReader.read

        def read_or_hang(self: PairReader, piece: Any) -> Any:
            if next(pieces) >= int(os.environ["AFTER"]):
                time.sleep(1000)
            return read(self, piece)

        PairReader.read = read_or_hang  # type: ignore[method-assign]
    try:
        train(sys.argv[1], ["align"], TrainConfig.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
