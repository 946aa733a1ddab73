"""Training on cached features is training on the towers themselves, to the rounding of float16."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mmdata.errors import DataError, UserError
from tests.support import modalities, workspaces
from tests.support.tiny_run import VISION, alone, built_stage, release_at, settings
from tests.support.tiny_towers import SMALL, TOWERS
from training.checkpoint.checkpoints import find_checkpoint, read_progress
from training.config import TrainConfig
from training.data import media_tensors
from training.data.batch_readers import Share
from training.data.feature_cache import FeatureTable
from training.data.sample_index import open_training_release
from training.evaluate.evaluation import evaluate
from training.model.encoders import DualEncoder
from training.run import train
from training.stages import frozen_towers as frozen_towers_module
from training.stages.frozen_towers import cached_features, fill_tables, frozen_towers
from training.stages.stage_model import load_model
from training.stages.stage_reader import make_reader
from training.stages.stage_step import make_step
from training.step_log import read_log

FROZEN = {"freeze_image": True, "freeze_text": True, "crop_scale": 1.0}
AUDIO = {"kind": "logmel_vit", "config": SMALL, "mel_bins": 16, "seconds": 1.0}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    return release_at(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def every_signature(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures, clips, sound and texts, with copies that are varied."""
    root = tmp_path_factory.mktemp("every") / "workspace"
    oversample = {"threshold": 0.9, "max_repeats": 3}
    workspaces.release(
        modalities.build(
            root,
            instruct={"tasks": ["caption", "step_caption", "step_order", "transcribe", "match"]},
            select={"oversample": oversample},
        )
    )
    return str(root)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


def computed(folder: Path) -> list[float]:
    return [line["media"] for line in read_log(folder) if line["kind"] == "features"]


def cached(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"cache_features": True})})


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_losses_are_those_without_the_cache_and_later_stages_find_the_features(
    release: str, tmp_path: Path, workers: int
) -> None:
    stages: dict[str, Any] = {"joint": {"log_every": 1, "batch_size": 48}, "instruct": {"log_every": 1}}
    config = settings(align={**FROZEN, "log_every": 1}, data={"workers": workers}, **stages)
    plain = train(release, ["align", "joint", "instruct"], config, tmp_path / "plain")
    kept = train(release, ["align", "joint", "instruct"], cached(config), tmp_path / "kept")
    for one, other in zip(plain, kept, strict=True):
        assert losses(other.folder) == pytest.approx(losses(one.folder), rel=2e-3)
        assert other.metrics["val/loss"] == pytest.approx(one.metrics["val/loss"], rel=2e-3)
    assert computed(kept[0].folder)[0] > 40
    assert computed(kept[1].folder)[0] > 20
    assert computed(kept[2].folder) == [0], "the pictures of the instructions are those of the pairs"


@pytest.mark.parametrize("stage", ["align", "joint", "instruct"])
def test_clips_sound_and_varied_copies_give_the_same_losses(every_signature: str, tmp_path: Path, stage: Any) -> None:
    sections = {"steps": 1, "batch_size": 96, "pack_length": 640, "max_text_tokens": 400}
    model = {**settings().model.model_dump(), "audio": AUDIO}
    config = settings(model=model, **{stage: sections if stage != "align" else {**FROZEN, "batch_size": 96}})
    shares = []
    built = built_stage(stage, config)
    opened = open_training_release(every_signature, tmp_path)
    built.model.eval()
    for chosen in (config, cached(config)):
        towers = frozen_towers(built, chosen, tmp_path / "features")
        reader = make_reader(built, opened, chosen, "train", 96, Share(), cached_features(towers))
        if towers:
            fill_tables(built, towers, [(reader, 96)], alone(), 0, make_autocast)
        shares.append(make_step(built, built.model, chosen, alone())(reader[0]))
    plain, kept = shares
    assert plain.keys() == kept.keys()
    assert {name: float(v) for name, v in kept.items()} == pytest.approx(
        {name: float(v) for name, v in plain.items()}, rel=2e-3
    )


def make_autocast() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("name", TOWERS)
def test_a_body_and_its_head_are_the_tower(name: str) -> None:
    from training.model.encoders import build_encoder
    from training.model_config import Audio

    encoder = build_encoder(TOWERS[name], Audio()).eval()
    pixels = torch.randn(2, 3, *encoder.vision.preprocess.size)
    texts = encoder.tokenize(["a cat", ""])
    with torch.no_grad():
        whole = getattr(encoder.vision, "visual", None)
        expected = encoder.vision(pixels) if whole is None else whole(pixels)
        torch.testing.assert_close(encoder.vision.head(encoder.vision.body(pixels)), expected)
        assert len(encoder.vision.body(pixels)) == 2
        text = getattr(encoder.text, "text", None)
        expected = encoder.text(texts) if text is None else text(texts)
        torch.testing.assert_close(encoder.text.head(encoder.text.body(texts)), expected)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(release: str, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 5:
            raise Cut

    config = cached(settings(align={**FROZEN, "steps": 6, "checkpoint_every": 2, "log_every": 1}))
    whole = train(release, ["align"], config, tmp_path / "whole")[0]
    with pytest.raises(Cut):
        train(release, ["align"], config, tmp_path / "cut", on_line=cut)
    assert read_progress(find_checkpoint(tmp_path / "cut" / "align")).step == 4
    resumed = train(release, ["align"], config, tmp_path / "cut")[0]
    states = [load_model(result.checkpoint)[0].model.state_dict() for result in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    lines = [line["media"] for line in read_log(resumed.folder) if line["kind"] == "features"]
    assert lines[0] > 0
    assert lines[-1] == 0, "nothing is computed twice"


def test_a_killed_fill_continues_after_its_last_part(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    monkeypatch.setattr(frozen_towers_module, "TOWER_BATCH", 4)
    monkeypatch.setattr(frozen_towers_module, "PART_BYTES", 1)
    config = cached(settings(align={"freeze_image": True, "crop_scale": 1.0}))
    runs = []
    body = DualEncoder.picture_body

    def counted(model: DualEncoder, pictures: torch.Tensor) -> torch.Tensor:
        if bool(pictures.any()):  # not the blank one, of which the size is taken
            runs.append(len(pictures))
        if len(runs) == 4:
            raise Killed
        return body(model, pictures)

    monkeypatch.setattr(DualEncoder, "picture_body", counted)
    with pytest.raises(Killed):
        train(release, ["align"], config, tmp_path)
    first, runs[:] = sum(runs[:-1]), [0] * 10
    result = train(release, ["align"], config, tmp_path)[0]
    assert first == 12
    assert sum(runs) == computed(result.folder)[0]
    folder = next((tmp_path / "data" / "features").iterdir())
    assert len(FeatureTable(folder)) == first + sum(runs)


def test_the_share_of_each_rank_adds_up_to_all(release: str, tmp_path: Path) -> None:
    """Data-parallel ranks and ranks that split a model, one after the other, write what one process would."""
    from training.distributed.process_mesh import Mesh

    class Ranked(Mesh):
        place: ClassVar[dict[str, int]] = {}

        def rank(self, name: str) -> int:
            return self.place[name]

        def size(self, name: str) -> int:
            return {"pp": 1, "dp": 2, "tp": 2}[name]

    config = cached(settings(align=FROZEN))
    built = built_stage("align", config)
    opened = open_training_release(release, tmp_path / "data")
    tables, media = [], []
    for folder, ranks in (("one", [{}]), ("four", [{"pp": 0, "dp": dp, "tp": tp} for dp in (0, 1) for tp in (0, 1)])):
        towers = frozen_towers(built, config, tmp_path / folder)
        reader = make_reader(built, opened, config, "train", 8, Share(), cached_features(towers))
        for Ranked.place in ranks:
            mesh = Ranked(torch.device("cpu"), {}) if Ranked.place else alone()
            media.append(fill_tables(built, towers, [(reader, 10**6)], mesh, 0, make_autocast)["media"])
        tables.append({kind: len(tower.table) for kind, tower in towers.items()})
    assert tables[0] == tables[1]
    assert tables[0]["picture"] > 30
    assert min(media[1:]) > 0.15 * media[0], "each of the four computes a share"


def test_the_disk_is_told_before_and_refused_when_it_is_too_small(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_samples = {"batch_size": 48}
    config = cached(settings(joint=all_samples))
    lines: list[dict[str, Any]] = []
    train(release, ["joint"], config, tmp_path / "large", on_line=lines.append)
    told, done = (line for line in lines if line["kind"].startswith("features"))
    assert [told["kind"], done["kind"]] == ["features_planned", "features"]
    places, width = 4, VISION["width"]
    assert told["media"] == done["media"] > 20
    assert done["bytes"] == pytest.approx(done["media"] * places * width * 2, rel=0.1)
    assert done["bytes"] < told["bytes"] < 1.2 * done["bytes"] + 1000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(told["bytes"]) - 1))
    with pytest.raises(
        UserError, match=r"take about .* kB of picture\), and the disk of .* free\. Remedy: an --output"
    ):
        train(release, ["joint"], config, tmp_path / "small")
    assert computed(tmp_path / "small" / "joint") == []
    train(
        release, ["joint"], settings(joint=all_samples), tmp_path / "small"
    )  # the remedy: data.cache_features = false
    again: list[dict[str, Any]] = []  # all is there: no space is needed
    train(
        release,
        ["joint"],
        cached(settings(joint={**all_samples, "steps": 5})),
        tmp_path / "large",
        on_line=again.append,
    )
    assert "features_planned" not in [line["kind"] for line in again]


def test_parts_are_named_by_their_release_and_go_with_it(release: str, tmp_path: Path) -> None:
    config = cached(settings(align=FROZEN))
    train(release, ["align"], config, tmp_path)
    id_ = open_training_release(release, tmp_path / "data").id
    parts = list((tmp_path / "data" / "features").glob("*/parts/*"))
    assert len(parts) >= 2
    assert all(part.name.startswith(f"{id_}.") for part in parts)
    for part in parts:
        shutil.rmtree(part)
    lines: list[dict[str, Any]] = []
    longer = cached(settings(align={**FROZEN, "steps": 5}))
    train(release, ["align"], longer, tmp_path, on_line=lines.append)
    assert lines[1]["kind"] == "features"
    assert lines[1]["media"] > 0


def test_other_weights_other_preprocessing_and_another_precision_have_other_tables(tmp_path: Path) -> None:
    def name_of(change: Any = None, **sections: Any) -> str:
        config = cached(settings(align=FROZEN, **sections))
        built = built_stage("align", config)
        if change is not None:
            change(built.model)
        return frozen_towers(built, config, tmp_path)["picture"].table.folder.name

    def head(model: Any) -> None:
        model.vision.visual.proj.data.add_(1)

    def body(model: Any) -> None:
        model.vision.visual.conv1.weight.data.add_(1)

    assert name_of() == name_of(head)
    names = {name_of(), name_of(body), name_of(seed=1), name_of(parallel={"precision": "bf16"})}
    assert len(names) == 4


def test_another_layer_of_the_tower_has_another_table(tmp_path: Path) -> None:
    names = set()
    for layer in (-1, -2):
        config = cached(settings(model={"picture_layer": layer}))
        towers = frozen_towers(built_stage("joint", config), config, tmp_path)
        names.add(towers["picture"].table.folder.name)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("align", "message"),
    [({"crop_scale": 0.9}, "align.crop_scale 0.9 crops"), ({"masked_weight": 0.1}, "align.masked_weight reads")],
)
def test_pictures_that_change_are_refused(release: str, tmp_path: Path, align: dict[str, Any], message: str) -> None:
    config = cached(settings(align={**FROZEN, **align}))
    with pytest.raises(UserError, match=message):
        train(release, ["align"], config, tmp_path)


def test_trained_towers_are_not_cached(release: str, tmp_path: Path) -> None:
    result = train(release, ["align"], cached(settings()), tmp_path)[0]
    assert computed(result.folder) == []
    assert not (tmp_path / "data" / "features").exists()


def test_an_unreadable_picture_is_replaced_as_without_the_cache(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, bad = media_tensors.decode_pixels, []

    def sometimes(data: bytes, *rest: Any) -> Any:
        if len(data) % 5 == 0:
            bad.append(data)
            raise ValueError("broken on purpose")
        return decode(data, *rest)

    monkeypatch.setattr(media_tensors, "decode_pixels", sometimes)
    config = settings(align={**FROZEN, "log_every": 1}, data={"max_bad_share": 1.0})
    plain = train(release, ["align"], config, tmp_path / "plain")[0]
    kept = train(release, ["align"], cached(config), tmp_path / "kept")[0]
    assert bad
    lines = [[line for line in read_log(result.folder) if line["kind"] == "train"] for result in (plain, kept)]
    assert [line["bad_samples"] for line in lines[0]] == [line["bad_samples"] for line in lines[1]]
    assert losses(kept.folder) == pytest.approx(losses(plain.folder), rel=2e-3)


def test_features_that_were_deleted_are_an_error_with_a_remedy(release: str, tmp_path: Path) -> None:
    config = cached(settings(align=FROZEN))
    built = built_stage("align", config)
    opened = open_training_release(release, tmp_path / "data")
    towers = frozen_towers(built, config, tmp_path / "features")
    reader = make_reader(built, opened, config, "train", 8, Share(), cached_features(towers))
    with pytest.raises(DataError, match=r"lacks the features.*Remedy: delete the folder"):
        reader[0]


def test_evaluation_of_a_cached_run_measures_what_it_measured_in_training(release: str, tmp_path: Path) -> None:
    config = cached(settings(align=FROZEN))
    train(release, ["align"], config, tmp_path)
    metrics = evaluate(tmp_path / "align", release)["metrics"]
    plain = settings(align=FROZEN)
    train(release, ["align"], plain, tmp_path / "plain")
    expected = evaluate(tmp_path / "plain" / "align", release)["metrics"]
    assert metrics == pytest.approx(expected, abs=0.02)
