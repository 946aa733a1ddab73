"""A release trains in a client that others wrote: open_clip's own `open_clip_train`, offline, on the CPU."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdata.releases.manifest import open_release
from tests.support.workspaces import build, release

CLIENT = Path(__file__).parents[1] / "support" / "open_clip_client.py"
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
STEP = re.compile(r"Train Epoch: \d+ \[ *\d+/\d+ .* Loss: (\S+) ")
BATCH, EPOCHS = 8, 20


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, tuple[str, int]]:
    """By split: the shards as open_clip takes them, and their samples."""
    built = build(str(tmp_path / "workspace"), {"web-000000": range(45), "web-000001": range(45, 90)})
    release_id = release(built)
    listed = open_release(built.workspace.release_dir(release_id)).manifest["shards"]
    by_split = {}
    for split in ("train", "validation"):
        of_split = [shard for shard in listed if shard["split"] == split]
        paths = [str(built.workspace.shards_dir / shard["name"]) for shard in of_split]
        by_split[split] = ("::".join(paths), sum(shard["samples"] for shard in of_split))
    return by_split


def train(tmp_path: Path, *arguments: str) -> str:
    """Run the client in a folder of its own; its log."""
    (tmp_path / "tiny-client.json").write_text(json.dumps(TINY))
    command = [sys.executable, str(CLIENT), "tiny-client.json", "--model", "tiny-client", "--device", "cpu"]
    command += ["--precision", "fp32", "--name", "run", "--logs", "logs", "--log-every-n-steps", "1", *arguments]
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | offline, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return (tmp_path / "logs" / "run" / "out.log").read_text()


@pytest.mark.slow  # another trainer, whole
def test_a_release_trains_and_validates_in_open_clip(shards: dict[str, tuple[str, int]], tmp_path: Path) -> None:
    (train_shards, samples), (held_out_shards, held_out) = shards["train"], shards["validation"]
    assert min(train_shards.count("::"), held_out_shards.count("::")) >= 2, "several shards"
    log = train(
        tmp_path,
        *("--dataset-type", "webdataset", "--train-data", train_shards, "--train-num-samples", str(samples)),
        *("--val-data", held_out_shards, "--val-num-samples", str(held_out), "--val-frequency", str(EPOCHS)),
        *("--batch-size", str(BATCH), "--epochs", str(EPOCHS), "--workers", "1", "--lr", "1e-3", "--warmup", "10"),
        *("--wd", "0", "--save-frequency", "0"),
    )
    assert "webdataset error" not in log, "the client leaves out what it cannot read"

    losses = [float(loss) for loss in STEP.findall(log)]
    steps = EPOCHS * math.ceil(samples / BATCH)
    assert len(losses) == steps
    assert all(map(math.isfinite, losses))
    last_epoch = losses[-steps // EPOCHS :]
    assert sum(last_epoch) / len(last_epoch) < 0.75 * math.log(BATCH), "it learns which caption is whose"

    checkpoints = tmp_path / "logs" / "run" / "checkpoints"
    results = [json.loads(line) for line in (checkpoints / "results.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["num_samples"]) for line in results] == [(EPOCHS, held_out)]
    assert math.isfinite(results[0]["clip_val_loss"])

    saved = torch.load(checkpoints / f"epoch_{EPOCHS}.pt", weights_only=True)
    assert saved["epoch"] == EPOCHS
    assert {int(state["step"]) for state in saved["optimizer"]["state"].values()} == {steps}
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
