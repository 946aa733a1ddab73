"""Held-out metrics are those of the model that was saved, and are written beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmdata.errors import UserError
from tests.support import workspaces
from tests.support.tiny_run import settings
from tests.support.trained import checkpoint_of
from training.data.augment import own_columns
from training.data.batch_readers import Share
from training.data.batch_stream import batches
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader
from training.distributed.process_mesh import Mesh
from training.evaluate import evaluation
from training.evaluate.evaluation import evaluate
from training.stages.generative import with_stand_ins
from training.stages.stage_model import load_model
from training.stages.stage_reader import make_reader


def release_of(root: Path, samples: int) -> str:
    shards = {"shard_mb": 1, "validation_fraction": 0.5}
    workspaces.release(workspaces.build(str(root), {"web-000000": range(samples)}, shards=shards))
    return str(root)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    return release_of(tmp_path_factory.mktemp("release"), 96)


def held_out(built: Any, config: Any, release: str, folder: Path) -> list[Any]:
    reader = make_reader(built, open_training_release(release, folder), config, "validation", 16, Share())
    stream = batches(reader, 0)
    return [next(stream) for _ in range(-(-len(reader.source) // 16))]


def test_recall_is_counted_over_the_whole_held_out_split(tmp_path: Path, release: str) -> None:
    config = settings()
    place = checkpoint_of(tmp_path, "align", config, release)
    found = evaluate(place.parent.parent, release)
    built, _ = load_model(place)
    model: Any = built.model
    texts, pictures = [], []
    with torch.no_grad():
        for batch in held_out(built, config, release, tmp_path / "data"):
            real = batch.weight > 0
            out = model(batch)
            texts.append(out["text"][real])
            pictures.append(out["visual"][real])
    scores = torch.cat(pictures) @ torch.cat(texts).T
    right = (scores.argsort(1, descending=True)[:, :5] == torch.arange(len(scores))[:, None]).any(1)
    assert found["samples"] == len(scores) > 16
    assert found["metrics"]["image_to_text/recall@5"] == pytest.approx(float(right.float().mean()))
    assert found["metrics"]["image_to_text/chance@1"] == pytest.approx(1 / len(scores))
    assert json.loads((tmp_path / "align" / "metrics.json").read_text()) == found
    assert "| image_to_text/recall@1 |" in (tmp_path / "align" / "metrics.md").read_text()


@pytest.mark.parametrize("stage", ["joint", "instruct"])
def test_perplexity_is_that_of_the_held_out_words(tmp_path: Path, release: str, stage: str) -> None:
    config = settings()
    place = checkpoint_of(tmp_path, stage, config, release)
    found = evaluate(place, release, generate=3)
    built, _ = load_model(place)
    model: Any = built.model
    model.eval()
    loss, tokens = 0.0, 0
    with torch.no_grad():
        for batch in held_out(built, config, release, tmp_path / "data"):
            loss += float(model(with_stand_ins(batch, model))["loss"])
            tokens += int((batch.labels[:, 1:] != -100).sum())
    assert found["metrics"]["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert len(found["answers"]) == 3
    assert all(answer["expected"] for answer in found["answers"])
    assert 0 <= found["metrics"]["rouge1"] <= 1
    page = tmp_path / stage / "captions.html"
    assert page.exists() == (stage == "joint")
    assert stage != "joint" or page.read_text().count("<img") == 3


class OneOfTwo(Mesh):
    """A process that has a twin, which does exactly the same."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values.mul_(2)


def test_perplexity_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = checkpoint_of(tmp_path, "joint", settings(), release)
    alone = evaluate(place, release, generate=0)["metrics"]
    monkeypatch.setattr(evaluation, "join_processes", lambda *_: OneOfTwo(torch.device("cpu"), {}))
    assert evaluate(place, release, generate=0)["metrics"] == alone


def test_at_most_so_many_samples_are_measured(tmp_path: Path, release: str) -> None:
    place = checkpoint_of(tmp_path, "align", settings(), release)
    assert evaluate(place, release, samples=10)["samples"] == 10
    whole = evaluate(place, release)["samples"]
    assert whole < 64 or evaluate(place, release, samples=whole - 1)["samples"] == 64


def test_pictures_like_the_held_out_ones_are_nearer_to_them_than_noise(tmp_path: Path, release: str) -> None:
    config = settings()
    place = checkpoint_of(tmp_path, "align", config, release)
    built, _ = load_model(place)
    noise = np.random.default_rng(0)
    for name in ("same", "noise"):
        (tmp_path / name).mkdir()
    at = 0
    for batch in held_out(built, config, release, tmp_path / "data"):
        for pixels in batch.picture:
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "same" / f"{at}.png")
            Image.fromarray(noise.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "noise" / f"{at}.png")
            at += 1
    fid = {name: evaluate(place, release, generated=tmp_path / name)["metrics"]["fid"] for name in ("same", "noise")}
    assert fid["same"] < 0.2 * fid["noise"]
    assert "features of the image tower of the checkpoint" in (tmp_path / "align" / "metrics.md").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures there"):
        evaluate(place, release, generated=tmp_path / "empty")


def test_pictures_are_classified_by_a_column_of_the_source(tmp_path: Path, release: str) -> None:
    place = checkpoint_of(tmp_path, "align", settings(), release)
    with pytest.raises(UserError, match="column shade: no held-out picture has a class there"):
        evaluate(place, release, classify="shade")
    with pytest.raises(UserError, match="is for the FID of generated pictures"):
        evaluate(place, release, inception=tmp_path / "weights.pth")
    column = next(iter(own_columns_of(release, tmp_path)))
    found = evaluate(place, release, classify=column)
    report = found["classification"]
    assert report["samples"] + report["left_out"] == found["samples"]
    assert sum(row["support"] for row in report["classes"]) == report["samples"] > 16
    assert found["metrics"]["zero_shot/accuracy"] == report["accuracy"]
    assert "| macro average |" in (tmp_path / "align" / "metrics.md").read_text()
    joint = checkpoint_of(tmp_path, "joint", settings(), release)
    with pytest.raises(UserError, match="Remedy: give the folder of stage `align`"):
        evaluate(joint, release, classify=column)


def own_columns_of(release: str, folder: Path) -> dict[str, Any]:
    opened = open_training_release(release, folder / "data")
    return own_columns(SampleReader(opened).members(opened.samples("validation")[0]))


def test_a_release_that_holds_nothing_out_cannot_be_measured_on(tmp_path: Path) -> None:
    built = workspaces.build(str(tmp_path / "w"), {"web-000000": range(12)}, shards={"validation_fraction": 0.0})
    workspaces.release(built)
    place = checkpoint_of(tmp_path, "align", settings(), str(tmp_path / "w"))
    with pytest.raises(UserError, match="holds nothing out"):
        evaluate(place, str(tmp_path / "w"))


def test_a_checkpoint_of_another_release_is_refused(tmp_path: Path, release: str) -> None:
    place = checkpoint_of(tmp_path, "align", settings(), release)
    other = release_of(tmp_path / "other", 30)
    with pytest.raises(UserError, match="was trained on"):
        evaluate(place, other)
    assert evaluate(place, other, allow_release_change=True)["metrics"]
