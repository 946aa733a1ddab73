"""Trains on a release, in one process or under torchrun: `python -m training RELEASE --preset tiny --output DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the command line. Returns the exit code: 0 done, 1 a data error, 2 a user error."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    sources = "a release (its folder, releases/latest, or a workspace), or a file of own instructions"
    parser.add_argument("sources", nargs="*", metavar="RELEASE", help=f"{sources}; data.sources are read beside them")
    parser.add_argument("--stage", default="all", choices=["align", "joint", "instruct", "all"], help="default: all")
    parser.add_argument("--preset", help="tiny, smollm2, b16-360m, b16-0.5b, b32-0.5b, l14-1b, l14-7b")
    parser.add_argument(
        "--settings", "--config", type=Path, metavar="TOML", dest="config", help="settings, over the preset"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="over both")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for checkpoints and logs")
    options = parser.parse_args()
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from mmdata.display import shown
    from mmdata.errors import MMDataError, UserError, describe_machine_error
    from training.config import STAGES
    from training.config_file import load_train_config
    from training.run import train

    try:
        config = load_train_config(options.preset, options.config, options.overrides)
        stages = STAGES if options.stage == "all" else (options.stage,)
        results = train(options.sources, stages, config, options.output, on_line=_show)
    except MMDataError as error:
        sys.stderr.write(f"error: {shown(str(error))}\n")
        return 2 if isinstance(error, UserError) else 1
    except Exception as error:
        refusal = describe_machine_error(error)
        if refusal is None:
            raise
        sys.stderr.write(f"error: {shown(refusal)}\n")
        return 2
    for result in results:
        sys.stdout.write(f"{result.stage}: {result.stopped} after {result.steps} steps; {result.checkpoint}\n")
    return 0


def _show(line: dict[str, Any]) -> None:
    numbers = " ".join(f"{key} {value:.4g}" for key, value in line.items() if isinstance(value, float | int))
    sys.stdout.write(f"{line['kind']} {numbers}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
