"""Trained models on disk, and whether they are sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.inspect.training_runs import (
    MAX_ANSWER_CHARS,
    SHOWN_ANSWERS,
    evaluation_report,
    last_step,
    loss_fell,
    model_folder,
    model_folders,
    read_log,
    show_captions,
    shown_answers,
    stage_report,
    step_text,
    trained_on,
)
from mmdata.releases.manifest import Release
from mmdata.workspace.layout import Workspace

RESULT = {"stage": "align", "checkpoint": "step-00000009", "steps": 9, "samples": 72, "seconds": 3.5, "metrics": {}}


def stage(folder: Path, losses: list[float], **result: Any) -> Path:
    folder.mkdir(parents=True)
    lines = [{"kind": "train", "step": n, "loss": loss, "samples_per_s": 10.0 * n} for n, loss in enumerate(losses, 1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text(json.dumps({**RESULT, **result}))
    checkpoint = folder / "checkpoints" / "step-00000009"
    checkpoint.mkdir(parents=True)
    (checkpoint / "meta.json").write_text(json.dumps({"release_id": "r1", "release_digest": "d" * 64}))
    return folder


@pytest.mark.parametrize(
    ("losses", "passed", "says"),
    [
        ([4, 3, 3, 2, 2], True, "from 4 to 2 in 5 steps"),
        ([2, 2.1, 2.2, 2.3, 2.4], False, "from 2 to 2.4"),
        ([4, 4, 3, 3, 2, 2, 1, 1, 1, 9, 4, 4, 3, 3, 2, 2, 1, 1, 1, 2], True, "from 3.5 to 1.25"),  # a hard last batch
        ([4, float("nan"), 1, 1, 1], False, "nan at step 2"),
        ([4, 3, float("inf")], False, "inf at step 3"),
        ([4], False, "1 steps are logged"),
        ([], False, "0 steps are logged"),
    ],
)
def test_a_loss_must_be_finite_and_fall(tmp_path: Path, losses: list[float], passed: bool, says: str) -> None:
    finding = loss_fell(stage(tmp_path / "align", losses))
    assert finding.passed is passed
    assert says in finding.summary


def test_a_resumed_stage_is_judged_from_its_first_start_and_torn_lines_do_not_matter(tmp_path: Path) -> None:
    folder = stage(tmp_path / "align", [4.0, 3.0, 9.0, 9.0], first_loss=2.0)
    with (folder / "log.jsonl").open("a") as log:  # killed at step 4, resumed from step 2
        log.write('{"kind": "train", "st\n')
        for step, loss in ((3, 2.0), (4, 1.0)):
            log.write(json.dumps({"kind": "train", "step": step, "loss": loss, "samples_per_s": 1.0}) + "\n")
    assert [line["loss"] for line in read_log(folder)] == [4.0, 3.0, 2.0, 1.0]
    assert loss_fell(folder).numbers == {"first_loss": 4.0, "last_loss": 1.0}
    assert stage_report(folder, "r").numbers["first_loss"] == 4.0


def test_last_step_of_a_growing_log(tmp_path: Path) -> None:
    assert last_step(tmp_path / "align") == 0
    folder = stage(tmp_path / "align", [4.0] * 3000)
    assert last_step(folder) == 3000
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')
    assert last_step(folder) == 3000
    (folder / "log.jsonl").write_text('{"kind')
    assert last_step(folder) == 0


def test_a_checkpoint_must_name_release_and_digest(tmp_path: Path) -> None:
    folder = stage(tmp_path / "align", [2, 1])
    assert trained_on(folder, "r1", "d" * 64).passed
    assert "names release r1" in trained_on(folder, "r2", "d" * 64).summary
    assert not trained_on(folder, "r1", "e" * 64).passed
    meta = {"release_id": "r1 + own.json", "release_digest": "f", "sources": [{"id": "r1", "digest": "d" * 64}]}
    (folder / "checkpoints" / "step-00000009" / "meta.json").write_text(json.dumps(meta))
    assert trained_on(folder, "r1", "d" * 64).passed, "among others"
    assert not trained_on(folder, "r1", "e" * 64).passed
    (folder / "checkpoints" / "step-00000009" / "meta.json").write_text("{}")
    assert "names no release" in trained_on(folder, "r1", "d" * 64).summary


def test_report_leaves_out_what_is_no_number_and_names_places(tmp_path: Path) -> None:
    folder = stage(tmp_path / "align", [4, 3, 2], metrics={"val/loss": float("nan"), "val/recall@1": 0.25})
    (folder / "scorer").mkdir()
    report = stage_report(folder, "releases/r1")
    assert report.numbers == {
        "last_loss": 2,
        "first_loss": 4,
        "samples_per_s": 20,
        "seconds": 3.5,
        "val/recall@1": 0.25,
    }
    assert report.counts == {"steps": 9, "samples": 72}
    assert report.paths["checkpoint"] == str(folder / "checkpoints" / "step-00000009")
    assert f"model: {folder / 'scorer'}" in report.text["use as the scorer"]
    assert len(report.images["loss"]) < 20_000


def test_an_unfinished_stage_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished training stage"):
        stage_report(tmp_path / "align", "r")


def test_answers_shown_are_few_and_short() -> None:
    answer = {"uid": "0" * 32, "prompt": "", "expected": "a" * 1000, "generated": None}
    found = shown_answers({"answers": [answer] * 50})
    assert len(found) == SHOWN_ANSWERS
    assert len(found[0]["expected"]) == MAX_ANSWER_CHARS


def test_stages_are_measured_side_by_side(tmp_path: Path) -> None:
    answer = {"uid": "1", "prompt": "what?", "expected": "a boat", "generated": "a cat"}
    for name, metrics, answers in (("align", {"recall@1": 0.5}, []), ("joint", {"perplexity": 8.0}, [answer])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"metrics": metrics, "answers": answers}))
    report = evaluation_report(tmp_path, "r")
    assert report.tables["metrics"] == [
        {"metric": "recall@1", "align": 0.5, "joint": None},
        {"metric": "perplexity", "align": None, "joint": 8.0},
    ]
    shown = {"stage": "joint", "uid": "1", "asked": "what?", "expected": "a boat", "generated": "a cat"}
    assert report.tables["answers"] == [shown]
    assert report.numbers == {"align/recall@1": 0.5, "joint/perplexity": 8.0}
    (tmp_path / "instruct").mkdir()
    with pytest.raises(DataError, match="not evaluated"):
        evaluation_report(tmp_path, "r")


def test_a_step_line_says_what_it_knows() -> None:
    line = {"kind": "train", "step": 1200, "loss": 0.12345, "samples_per_s": 5120.4, "mfu": 0.41, "eta_s": 60.0}
    assert step_text("joint", line, 2000) == (
        "joint step 1,200 of 2,000: loss 0.1235, 5,120 samples/s, MFU 41.0%, 60 s to go"
    )
    assert step_text("align", {"kind": "train", "step": 1, "loss": 2.0, "mfu": None}) == "align step 1: loss 2"
    line = {"kind": "validation", "step": 5, "val/loss": 1.0, "val/recall@1": 0.5, "val/image_to_text/recall@1": 0.5}
    assert step_text("align", line) == "align step 5: validation loss 1, recall@1 0.5"
    planned = {"kind": "features_planned", "step": 0, "media": 1e6, "bytes": 512e9, "free_bytes": 9e12}
    assert step_text("joint", planned) == (
        "joint: about 1,000,000 features of frozen towers are missing; they take 512,000.0 MB of 9,000,000.0 MB free"
    )
    line = {"kind": "left_out", "step": 0, "document": 1200, "text": 3}
    assert step_text("align", line) == "align: samples that this stage does not read: 1,200 of document, 3 of text"
    line = {"kind": "records", "step": 0, "records": 1200, "bad": 0, "left_out": 0, "lists": ["a.jsonl"]}
    assert step_text("instruct", line) == "instruct: 1,200 own records, 0 bad, 0 left out"
    assert step_text("instruct", {**line, "bad": 3}) == "instruct: 1,200 own records, 3 bad, 0 left out: a.jsonl"


def test_models_lie_in_a_local_workspace_or_where_they_are_told_to(tmp_path: Path) -> None:
    here = Workspace(str(tmp_path))
    assert model_folder(here, "r1", "tiny") == tmp_path / "training" / "r1" / "tiny"
    assert model_folder(here, "r1", None, "/models") == Path("/models/r1/run")
    with pytest.raises(UserError, match="--output"):
        model_folder(Workspace("memory://bucket"), "r1", None)


def test_models_of_a_release_are_found_in_the_workspace_and_at_the_output(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "w"))
    folders = [tmp_path / "w" / "training" / "r1" / "tiny", tmp_path / "out" / "r1" / "run"]
    for folder in (*folders, tmp_path / "out" / "r2" / "run"):
        folder.mkdir(parents=True)
    assert model_folders(workspace, "r1") == folders[:1]
    assert model_folders(workspace, "r1", str(tmp_path / "out")) == sorted(folders)
    assert model_folders(Workspace("memory://w"), "r1") == []


def test_a_report_that_cannot_be_written_again_loses_no_evaluation(tmp_path: Path) -> None:
    release = Release(UPath(tmp_path / "releases" / "r1"), {"release_id": "r1"})
    assert show_captions(release, None) is None
    release.folder.mkdir(parents=True)
    (release.folder / "report.html").write_text("old")
    assert show_captions(release, None) is None, "there is no manifest"
    assert (release.folder / "report.html").read_text() == "old"
