"""The training assets on a real Dagster instance, each stage in a process of its own.

The training is a stand-in, so that the graph itself is tested in seconds; the last test trains for real.
"""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mmdata.report.stage import report_release
from pipelines.definitions import defs
from tests.support.coloured_pairs import TINY, coloured_release, tiny_scorer
from tests.support.compared import make_compared, released
from tests.support.training_runs import TrainingCorpus, failure, logged, run_training

SMALL = [
    *("align.steps=30", "align.batch_size=32", "align.warmup_steps=3", "joint.steps=8", "joint.batch_size=8"),
    *("instruct.steps=8", "instruct.batch_size=8", "data.workers=0"),
    *(f"{stage}.log_every=1" for stage in ("align", "joint", "instruct")),
]
"""The preset `tiny`, smaller still."""
MODELS = ("aligned_model", "joint_model", "instructed_model")


def test_job_trains_the_three_stages_on_the_latest_release_and_measures_them(
    corpus: TrainingCorpus, instance: dg.DagsterInstance
) -> None:
    report_release(corpus.built.workspace.release_dir(corpus.release_id))
    result = run_training(instance)
    assert result.success
    assert sorted(path.name for path in corpus.output.iterdir()) == ["align", "instruct", "joint"]
    checks = {(check.asset_key.to_user_string(), check.check_name) for check in result.get_asset_check_evaluations()}
    assert checks == {(model, name) for model in MODELS for name in ("loss_fell", "trained_on_release")}
    assert all(check.passed and check.blocking for check in result.get_asset_check_evaluations())
    lines = logged(instance, result)
    assert any(line.startswith("align step 1 of 20: loss 3.9, 100 samples/s") for line in lines)
    assert any(line.startswith("instruct step 20 of 20: loss 2") for line in lines)

    align = result.asset_materializations_for_node("aligned_model")[0].metadata
    assert align["last_loss"].value == 2
    assert align["val/recall@1"].value == 0.5
    assert align["samples_per_s"].value == 100
    assert align["loss"].value.startswith("![loss](data:image/svg+xml;base64,")
    assert len(align["loss"].value) < 28_000
    assert align["checkpoint"].value == str(corpus.output / "align" / "checkpoints" / "step-00000020")
    assert align["scorer"].value == str(corpus.output / "align" / "scorer")
    assert "scorer" not in result.asset_materializations_for_node("joint_model")[0].metadata
    measured = result.asset_materializations_for_node("evaluation")[0].metadata
    rows = [record.data for record in measured["metrics"].value.records]
    assert {"metric": "recall@1", "align": 0.5, "joint": None, "instruct": None} in rows
    assert measured["joint/perplexity"].value == 8
    options = json.loads((corpus.output / "joint" / "metrics.json").read_text())["options"]
    assert options == {"samples": 5000, "generate": 64}
    answer = measured["answers"].value.records[0].data  # plain cells: nothing in them is obeyed
    assert (answer["stage"], answer["expected"]) == ("joint", "<b>x</b> | [a](b)")
    page = corpus.built.workspace.release_dir(corpus.release_id) / "report.html"
    assert measured["report"].value == str(page)
    assert "a boat" in page.read_text().partition('id="captions"')[2]
    report_release(page.parent)
    everything = defs.resolve_implicit_global_asset_job_def()
    assert everything.execute_in_process(asset_selection=[dg.AssetKey("report")], instance=instance).success
    assert 'id="captions"' in page.read_text(), "the asset finds the models"


def test_a_finished_stage_is_not_trained_again(corpus: TrainingCorpus, instance: dg.DagsterInstance) -> None:
    assert run_training(instance, "aligned_model").success
    before = (corpus.output / "align" / "log.jsonl").read_bytes()
    again = run_training(instance, "aligned_model")
    assert again.success
    assert again.asset_materializations_for_node("aligned_model")[0].metadata["steps"].value == 20
    assert (corpus.output / "align" / "log.jsonl").read_bytes() == before


def test_a_later_stage_goes_on_from_the_release_of_the_model_above(
    corpus: TrainingCorpus, instance: dg.DagsterInstance
) -> None:
    assert run_training(instance, "aligned_model").success
    corpus.built.workspace.set_latest("0123456789abcdef")  # a newer release, made meanwhile
    assert run_training(instance, "joint_model").success
    assert (corpus.output / "joint" / "result.json").exists()


def test_a_stage_without_the_one_above_says_what_to_do(corpus: TrainingCorpus, instance: dg.DagsterInstance) -> None:
    result = run_training(instance, "joint_model")
    assert "materialise it first" in failure(result)


def test_a_release_can_be_named(corpus: TrainingCorpus, instance: dg.DagsterInstance) -> None:
    chosen = {"ops": {"aligned_model": {"config": {"release": corpus.release_id}}}}
    corpus.built.workspace.set_latest("0123456789abcdef")
    assert run_training(instance, "aligned_model", run_config=chosen).success
    assert "no release there" in failure(run_training(instance, "aligned_model"))


@pytest.mark.parametrize("fail", ["nan", "rise"])
def test_blocking_check_stops_a_model_whose_loss_did_not_fall(
    corpus: TrainingCorpus, instance: dg.DagsterInstance, fail: str
) -> None:
    corpus.set_training(f"fail={fail}")
    result = run_training(instance)
    assert not result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["loss_fell"]
    assert "nan at step 7" in str(failed[0].description) or fail == "rise"
    assert not (corpus.output / "joint").exists()


def test_blocking_check_stops_a_model_of_another_release(corpus: TrainingCorpus, instance: dg.DagsterInstance) -> None:
    assert run_training(instance, "aligned_model").success
    (meta,) = corpus.output.glob("align/checkpoints/*/meta.json")
    meta.write_text(json.dumps({"release_id": corpus.release_id, "release_digest": "0" * 64}))
    failed = [check for check in run_training(instance).get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["trained_on_release"]
    assert "digest 000000000000" in str(failed[0].description)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_training_trains_a_real_release(
    corpus: TrainingCorpus, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    corpus.set_training(*SMALL, preset="tiny")
    result = run_training(instance, run_config={"ops": {"evaluation": {"config": {"samples": 8, "answers": 2}}}})
    assert result.success, failure(result)
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert len(result.get_asset_check_evaluations()) == 6
    align = result.asset_materializations_for_node("aligned_model")[0].metadata
    assert (Path(str(align["scorer"].value)) / "open_clip_config.json").exists()
    measured = result.asset_materializations_for_node("evaluation")[0].metadata
    assert {"align/image_to_text/recall@1", "joint/perplexity", "instruct/perplexity"} <= set(measured)
    assert len(measured["answers"].value.records) == 4  # two of either model that answers
    assert measured["answers"].value.records[0].data["expected"]
    assert any(line.startswith("joint step 8 of 8: loss") for line in logged(instance, result))


def test_a_release_is_compared_with_the_raw_corpus_when_a_person_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    compared = make_compared(tmp_path, pairs=200)
    released(compared)
    monkeypatch.setenv("MMDATA_CONFIG", str(compared.config_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    result = defs.resolve_job_def("compare_release").execute_in_process(instance=instance)
    shown = result.asset_materializations_for_node("comparison")[0].metadata
    assert shown["release against raw"].value.startswith("![release against raw](data:image/svg+xml;base64,")
    verdict = shown["verdicts"].value.records[0].data["verdict"]
    assert verdict.startswith("release against raw: no difference seen")  # the release has every pair
    assert shown["both ways, recall@10 of raw"].value == shown["both ways, recall@10 of release"].value
    assert Path(shown["page"].value).read_text().startswith("<!doctype html>")


def test_a_filter_network_is_trained_on_a_trusted_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    score = tiny_scorer(tmp_path / "scorer")
    seed = coloured_release(tmp_path / "seed", pairs=260)
    source = {"name": "web", "kind": "laion", "files": "*.parquet"}
    corpus = {"workspace": str(tmp_path / "workspace"), "sources": [source]}
    corpus["score"] = {"model": score.model, "pretrained": None, "device": "cpu"}
    (tmp_path / "corpus.yaml").write_text(yaml.safe_dump(corpus))
    monkeypatch.setenv("MMDATA_CONFIG", str(tmp_path / "corpus.yaml"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    asked = {"release": str(seed), "set": [*TINY, "align.steps=3"]}
    result = defs.resolve_job_def("train_filter_network").execute_in_process(
        instance=instance, run_config={"ops": {"filter_network": {"config": asked}}}
    )
    shown = result.asset_materializations_for_node("filter_network")[0].metadata
    assert shown["held_out"].value == 52
    written = json.loads((Path(shown["network"].value) / "align" / "scorer" / "network.json").read_text())
    assert written["beats_scorer"] == bool(shown["beats_scorer"].value)
    assert len(shown["areas under the ROC curve"].value.records) == 9
