"""Trains a data filtering network on a trusted release, and checks it before it may decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from upath import UPath

from mmdata.config import Score
from mmdata.config.scorers import resolved
from mmdata.errors import UserError
from mmdata.releases.manifest import open_release
from mmdata.score.networks import VERDICT_FILE, VERDICT_KEY
from mmdata.stage import StageReport
from mmdata.storage.atomic import publish_json
from mmdata.storage.tables import scan_tables
from training.compare.shard_pairs import read_shard_pairs
from training.config import TrainConfig
from training.config_file import load_train_config
from training.network.mismatch_check import Check, check, mismatches
from training.run import train

MIN_HELD_OUT = 50
STEPS = 200
OnLine = Callable[[Mapping[str, Any]], None]


def train_network(
    seed_release: str, score: Score, output: Path, overrides: Sequence[str] = (), on_line: OnLine | None = None
) -> Check:
    """Train the align stage on a trusted release, from the scorer's towers, and compare both on held-out mismatches.

    Until the check has passed, the folder says that the network does not beat the scorer. Then `output` may be named in
    `score.networks`. A stopped training is resumed by the same call.

    Args:
        seed_release: folder of a release whose pairs are trusted; its validation split is the check.
        score: the scorer of the corpus: where the towers start, and what must be beaten.
        overrides: `key=value` settings of training, such as `align.steps=500`.

    Raises:
        UserError: the release has under 50 held-out pairs, or the scorer's towers cannot be trained.
    """
    release = open_release(seed_release)
    index = scan_tables([release.folder / "index.parquet"], ["uid", "split"]).collect()
    held_out = index.filter(index["split"] == "validation")["uid"].unique()
    if len(held_out) < MIN_HELD_OUT:
        raise UserError(
            f"{release.folder}: {len(held_out)} held-out pairs, and a network is checked on at least {MIN_HELD_OUT}. "
            "Remedy: a larger `shards.validation_fraction`, or more rows."
        )
    towers = output / "align" / "scorer"
    verdict = UPath(towers / VERDICT_FILE)
    publish_json(verdict, {VERDICT_KEY: False, "reason": "not checked yet"})
    result = train(str(release.folder), ["align"], network_config(score, overrides), output, on_line=on_line)[0]
    if result.stopped == "signal":
        raise KeyboardInterrupt
    cache = UPath((output / "vectors").resolve())
    vectors = {}
    captions: list[str] = []
    for name, settings in (("scorer", score), ("network", score.model_copy(update={"model": f"local-dir:{towers}"}))):
        pairs = read_shard_pairs(release, settings, cache, splits=["validation"])
        found = pairs.vectors(pairs.frame, _NoCaptions())
        vectors[name] = (found.image, found.text)
        captions = pairs.frame["caption"].to_list()
    checked = check(vectors["scorer"], vectors["network"], mismatches(vectors["scorer"][1], captions, seed=0))
    publish_json(verdict, {**checked.to_json(), "seed_release": release.id, "scorer_model": score.model})
    return checked


def network_report(checked: Check, output: Path) -> StageReport:
    """The check as the report that the graph shows."""
    areas = [
        {"wrong captions": kind, "model": model, **asdict(of[kind])}
        for model, of in zip(("scorer", "network", "network - scorer"), checked.figures(), strict=True)
        for kind in of
    ]
    return StageReport(
        stage="filter_network",
        counts={"held_out": checked.pairs, "beats_scorer": int(checked.beats_scorer)},
        numbers={f"gain, {kind}": gain.value for kind, gain in checked.gain.items()},
        tables={"areas under the ROC curve": areas},
        paths={"network": str(output)},
    )


def network_config(score: Score, overrides: Sequence[str] = ()) -> TrainConfig:
    """Settings of the align stage that starts from the scorer's towers."""
    score = resolved(score)
    kind = "demo" if score.model == "demo" else "open_clip"
    encoder = [f"model.encoder.kind={kind}"]
    if kind == "open_clip":
        encoder.append(f"model.encoder.model={score.model}")
        if score.pretrained and not score.model.startswith(("local-dir:", "hf-hub:")):
            encoder.append(f"model.encoder.pretrained={score.pretrained}")
    # with frozen towers their features are computed once; a GPU trains whole towers with align.freeze_image=false
    gentle = [f"align.steps={STEPS}", "align.lr=0.0003", "align.freeze_image=true", "align.freeze_text=true"]
    once = ["data.cache_features=true", "align.crop_scale=1"]
    return load_train_config(None, None, [*encoder, *gentle, *once, *overrides])


class _NoCaptions:
    def embed(self, captions: Sequence[str]) -> np.ndarray:
        raise AssertionError("every pair of a shard has both vectors")
