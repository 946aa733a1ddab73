"""Loading the code location."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipelines.definitions import defs

HEAVY = [
    *("torch", "torchvision", "open_clip", "img2dataset", "cv2", "webdataset", "ray", "matplotlib", "transformers"),
    *("faiss", "timm", "skimage", "pandas", "polars", "pyarrow", "training"),
]


def load(config: str | None) -> subprocess.CompletedProcess[str]:
    code = f"import sys, pipelines.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if name != "MMDATA_CONFIG"}
    if config is not None:
        environment["MMDATA_CONFIG"] = config
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_code_location_loads_without_heavy_imports_and_without_a_corpus() -> None:
    loaded = load(None)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "[]"
    assert "MMDATA_CONFIG" in loaded.stderr


def test_code_location_loads_with_a_wrong_corpus_and_says_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "corpus.yaml"
    wrong.write_text("workspace: ./w\nsorces: []\n")
    loaded = load(str(wrong))
    assert loaded.returncode == 0, loaded.stderr
    assert "did you mean `sources`" in loaded.stderr


def test_every_asset_has_group_kind_owner_and_description() -> None:
    specs = list(defs.resolve_all_asset_specs())
    assert len(specs) == 15
    for spec in specs:
        assert spec.group_name in {"ingest", "curate", "publish", "train"}
        assert spec.kinds
        assert spec.owners
        assert spec.description


def test_graph_is_the_road() -> None:
    above = {
        spec.key.to_user_string(): sorted(dep.asset_key.to_user_string() for dep in spec.deps)
        for spec in defs.resolve_all_asset_specs()
    }
    road = ["source_catalog", "source_rows", "media", "features", "selection", "shards", "instructions", "release"]
    road += ["aligned_model", "joint_model", "instructed_model", "evaluation"]
    assert above == {
        **dict(zip(road, [[], *([name] for name in road[:-1])], strict=True)),
        "report": ["release"],
        "comparison": ["release"],
        "filter_network": ["release"],
    }


def test_training_starts_when_a_person_asks_and_never_by_itself() -> None:
    train = {spec.key for spec in defs.resolve_all_asset_specs() if spec.group_name == "train"}
    assert len(train) == 6
    repository = defs.get_repository_def()
    for job in ("refresh_catalog", "build_part", "publish_release"):
        assert not set(repository.get_job(job).asset_layer.selected_asset_keys) & train
    compared, network = {dg.AssetKey("comparison")}, {dg.AssetKey("filter_network")}
    assert set(repository.get_job("train_release").asset_layer.selected_asset_keys) == train - compared - network
    assert set(repository.get_job("compare_release").asset_layer.selected_asset_keys) == compared
    automatic = {schedule.job_name for schedule in repository.schedule_defs}
    automatic |= {target.job_name for sensor in repository.sensor_defs for target in sensor.targets}
    assert automatic == {"refresh_catalog", "publish_release", "build_part"}  # headless runs these three, too
    graph = defs.resolve_asset_graph()
    assert all(graph.get(key).automation_condition is None for key in train)
    assert all(graph.get(key).pools == {"gpu"} for key in train)


def test_part_assets_run_one_part_at_a_time_and_the_rest_is_whole() -> None:
    graph = defs.resolve_asset_graph()
    for name in ("source_rows", "media", "features"):
        node = graph.get(dg.AssetKey(name))
        assert isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)
        assert node.backfill_policy is not None
        assert node.backfill_policy.max_partitions_per_run == 1
    assert not graph.get(dg.AssetKey("selection")).is_partitioned


@pytest.mark.parametrize(
    "check",
    [
        "download_share",
        "scores_sound",
        "no_uid_lost",
        "no_split_leakage",
        "shards_verify",
        "no_failed_parts",
        "loss_fell",
        "trained_on_release",
    ],
)
def test_gates_block_and_the_standing_check_does_not(check: str) -> None:
    found = {key.name: defs.resolve_asset_graph().get(key) for key in defs.resolve_asset_graph().asset_check_keys}
    assert found[check].blocking is (check != "no_failed_parts")
