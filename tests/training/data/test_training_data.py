"""Sources of a run: what a checkpoint remembers of them, and which of them a stage reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.workspace.layout import Workspace
from tests.support.own_data import in_record_form, write_list, write_pictures
from training.config import Data
from training.data.sample_index import TrainingRelease
from training.data.training_data import TrainingData, open_measured, open_training_data


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    names = write_pictures(tmp_path, 4)
    return write_list(tmp_path / "own.json", [in_record_form(name) for name in names])


def opened(paths: list[str], cache: Path, sources: list[object] | None = None) -> TrainingData:
    return open_training_data(paths, Data.model_validate({"sources": sources or []}), cache)


def test_one_release_is_what_checkpoints_of_before_remember(mixed: Workspace, tmp_path: Path) -> None:
    data = opened([str(mixed.root)], tmp_path)
    release, weight = data.releases[0]
    assert weight == 1.0
    for stage in ("align", "joint", "instruct"):
        origin = data.origin(stage)  # type: ignore[arg-type]
        assert (origin.id, origin.digest, origin.sources) == (release.id, release.digest, ())


def test_own_files_are_of_stage_instruct_only(mixed: Workspace, own_file: Path, tmp_path: Path) -> None:
    data = opened([str(mixed.root), str(own_file)], tmp_path)
    release = data.releases[0][0]
    assert data.origin("joint").digest == release.digest
    origin = data.origin("instruct")
    assert origin.id == f"{release.id} + own.json"
    assert [source["digest"] for source in origin.sources] == [release.digest, data.own[0][0].digest]
    alone = opened([str(own_file)], tmp_path)
    assert alone.origin("instruct").id == "own.json"
    with pytest.raises(UserError, match=r"stage `align` reads releases, and .*own.json .* Remedy: --stage instruct"):
        alone.origin("align")


def test_digests_and_weights_of_all_sources_are_remembered(
    mixed: Workspace, instructed: TrainingRelease, own_file: Path, tmp_path: Path
) -> None:
    def digest(weight: float, held_out: float = 0.05) -> str:
        own = {"path": str(own_file), "weight": weight, "held_out": held_out}
        return opened([str(mixed.root)], tmp_path, [own]).origin("instruct").digest

    other = opened([str(instructed.release.workspace.root), str(own_file)], tmp_path).origin("instruct").digest
    assert digest(1.0) == digest(1.0)
    assert len({digest(1.0), digest(2.0), digest(1.0, 0.2), other}) == 4


def test_what_cannot_be_trained_on_is_refused(mixed: Workspace, own_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to train on\. Remedy: a RELEASE"):
        opened([], tmp_path)
    for path in (str(mixed.root), str(own_file)):
        with pytest.raises(UserError, match=r"one of them is named twice\. Remedy: name it once, in data.sources"):
            opened([path, path], tmp_path)
    with pytest.raises(UserError, match="no such file of records"):
        opened([str(tmp_path / "none.jsonl")], tmp_path)


def test_an_own_file_is_measured_as_it_was_split_for_training(own_file: Path, tmp_path: Path) -> None:
    source = {"path": str(own_file), "held_out": 0.5, "weight": 3.0}
    trained = opened([], tmp_path, [source])
    measured = open_measured(str(own_file), Data.model_validate({"sources": [source]}), tmp_path)
    assert measured.origin("instruct").digest == trained.origin("instruct").digest
    assert measured.own[0][0].counts == trained.own[0][0].counts
    assert open_measured(str(own_file), Data(), tmp_path).origin("instruct").digest != trained.origin("instruct").digest


def test_records_of_all_own_files_are_counted(own_file: Path, tmp_path: Path) -> None:
    drawn = write_list(tmp_path / "drawn.json", [in_record_form("000.jpg"), {"instruction": "Draw.", "output": None}])
    counts = opened([str(own_file), str(drawn)], tmp_path / "cache").counts_of_own()
    assert (counts["records"], counts["bad"], counts["left_out"]) == (5, 0, 1)
    assert [Path(path).exists() for path in counts["lists"]] == [True, True]
