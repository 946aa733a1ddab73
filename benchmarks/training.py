"""Training speed: stage 1 against the loop of open_clip's trainer, stage 2 against a plain transformers Trainer.

Same machine, same run, same shards. On a GPU real sizes (ViT-B/32 at 1,024 a step; a 0.5B language model), on a CPU
small ones. `python -m benchmarks.training --gpu` prints the table of one GPU in ten minutes at most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, Run, cores, measure
from benchmarks.speed.gpu_table import TARGET_MFU, TARGET_TOKENS, TARGET_WAIT, run_table
from benchmarks.speed.ours import measure_ours
from benchmarks.speed.peers import measure_open_clip, measure_trainer
from benchmarks.speed.release import write_release
from benchmarks.speed.sizes import Size, Speed, align_size, joint_size, picture_tokens


def run(quick: bool) -> list[Row]:
    """Rows: either stage against its peer; our MFU, tokens a second and data wait, on a GPU against their targets."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = None if device == "cuda" else measured_peak_tflops()
    rounds = 1 if quick else 3
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mmdata-speed-") as folder:
        sizes = {"align": align_size, "joint": joint_size}
        for stage, size_of in sizes.items():
            size = replace(size_of(device, quick, cores()), peak_tflops=peak)
            workspace = str(Path(folder) / stage)
            write_release(Path(workspace), size.samples, 4 if device == "cpu" else 64)
            rows += _compared(stage, workspace, size, rounds, str(Path(folder) / "speed.json"))
    return rows


def _compared(stage: str, workspace: str, size: Size, rounds: int, out: str) -> list[Row]:
    ours = partial(_timed, out, measure_ours, workspace, stage, size)
    if stage == "align":
        peer = partial(_timed, out, measure_open_clip, workspace, size)
        unit, of = "samples/s", f"{'ViT-B/32' if size.clip is None else 'tiny towers'}, {size.batch} a step"
        against = "the loop of open_clip's trainer, its webdataset loader"
    else:
        peer = partial(_timed, out, measure_trainer, workspace, size, picture_tokens(size))
        unit, of = (
            "tokens/s",
            f"{size.llm['num_hidden_layers']} x {size.llm['hidden_size']}, {size.batch} samples a step",
        )
        against = "transformers.Trainer on the captions, padded; it is spared the pictures"
    pairs = [(ours(), peer()) for _ in range(rounds)]
    mine, theirs = [our for (_, our), _ in pairs], [their for _, (_, their) in pairs]
    row = Row(
        f"train {stage}: {of}",
        unit,
        _median(mine, lambda one: one.work / one.seconds),
        _median(theirs, lambda one: one.work / one.seconds),
        max(our.peak_mib for (our, _), _ in pairs),
        max(their.peak_mib for _, (their, _) in pairs),
        note=f"{size.device}; peer: {against}",
    )
    return [row, *_own(stage, size, row, mine, theirs)]


def _own(stage: str, size: Size, row: Row, mine: list[Speed], theirs: list[Speed]) -> list[Row]:
    """What our own step lines say, against the targets where these are meant: on a GPU."""
    on_gpu = size.device == "cuda"
    peak = "the GPU's, as its maker states it" if on_gpu else f"{size.peak_tflops:.2f} TFLOP/s, a fp32 matmul here"
    rows = []
    if all(one.mfu is not None for one in mine):
        mfu = _median(mine, lambda one: one.mfu or 0.0)
        other = TARGET_MFU if on_gpu else mfu * row.peer / row.ours
        note = f"peak: {peak}; " + ("peer: the target" if on_gpu else "peer: of the same model at its rate")
        if on_gpu or stage == "align":
            rows.append(_plain(f"train {stage}: MFU", "share", mfu, other, 1.0 if on_gpu else None, note))
    if stage == "joint":
        full, padded = (_median(side, lambda one: one.work / one.padded) for side in (mine, theirs))
        note = "ours packed, the peer padded"
        rows.append(_plain("train joint: real tokens", "share of all", full, padded, None, note))
        if on_gpu:
            note = "peer: the target, set for one H200"
            rows.append(_plain("train joint: tokens", "tokens/s", row.ours, TARGET_TOKENS, 1.0, note))
    wait = max(1e-4, _median(mine, lambda one: one.data_wait or 0.0))
    goal = 1.0 if on_gpu else None
    found = _plain(f"train {stage}: data wait", "share", wait, TARGET_WAIT, goal, "lower is better; peer: the target")
    return [*rows, replace(found, lower_is_better=True)]


def _plain(name: str, unit: str, ours: float, peer: float, goal: float | None, note: str) -> Row:
    return Row(name, unit, ours, peer, 0.0, 0.0, goal, note=note)


def _timed(out: str, side: Callable[..., float], *arguments: Any) -> tuple[Run, Speed]:
    """One side in a fresh process: its memory, and its speed as it wrote it down."""
    run = measure(side, *arguments, out)
    return run, Speed.read(out)


def _median(found: list[Any], value: Callable[[Any], float]) -> float:
    return statistics.median(value(one) for one in found)


def measured_peak_tflops(side: int = 2048, tries: int = 5) -> float:
    """What a square fp32 matmul reaches on this CPU: the peak that MFU is a share of where no maker states one."""
    import torch

    a, b = torch.randn(side, side), torch.randn(side, side)
    best = float("inf")
    for _ in range(tries):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e12


def main() -> int:
    """Print the GPU table. Returns: 0; 1 if a row failed; 2 if there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=main.__doc__)
    parser.add_argument("--gpu", action="store_true", required=True, help="training on one GPU, in 10 minutes at most")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: only to see that it runs")
    parser.add_argument("--tiny", action="store_true", help="the smallest models, for --device cpu")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("there is no GPU here. Remedy: run it on a machine with one, or try --device cpu --tiny.\n")
        return 2
    return run_table(options.device, options.tiny, options.json)


if __name__ == "__main__":
    sys.exit(main())
