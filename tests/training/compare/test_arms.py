"""Each way to name an arm gives the samples that it names."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml

from mmdata.errors import UserError
from mmdata.select.stage import select_samples
from tests.support.compared import Compared, make_compared
from tests.support.made_release import mixed_samples, write_release
from training.compare.arms import changed, open_arms


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return make_compared(tmp_path_factory.mktemp("arms"), pairs=80)


def test_raw_is_everything(small: Compared) -> None:
    assert open_arms(["raw"], small.corpus)[0].samples is None


@pytest.mark.parametrize("name", ["a&b", "Arm <1>, (new)", "neu.1"])
def test_a_name_may_have_any_sign_but_those_of_paths_and_settings(small: Compared, name: str) -> None:
    (arm,) = open_arms([f"{name}:raw"], small.corpus)
    assert (arm.name, arm.spec, arm.samples) == (name, "raw", None)


def test_settings_select_without_a_draft(small: Compared) -> None:
    arm, tighter = open_arms(
        ["half:select.filter.top_fraction=0.5", "select.filter.top_fraction=0.25; select.dedup.url=false"], small.corpus
    )
    assert (arm.name, len(arm.samples)) == ("half", 40)  # type: ignore[arg-type]
    assert len(tighter.samples) == 20  # type: ignore[arg-type]
    assert not small.workspace.releases_dir.exists()
    assert not small.workspace.draft_path.exists()


def test_another_corpus_file_of_the_workspace_is_an_arm(small: Compared, tmp_path: Path) -> None:
    data = yaml.safe_load(small.config_path.read_text())
    data["select"]["filter"] = {"top_fraction": 0.1}
    (tmp_path / "harsh.yaml").write_text(yaml.safe_dump(data))
    arm = open_arms([str(tmp_path / "harsh.yaml")], small.corpus)[0]
    assert (arm.name, len(arm.samples)) == ("harsh", 8)  # type: ignore[arg-type]
    data["workspace"] = str(tmp_path / "elsewhere")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match="the folder of a release"):
        open_arms([str(tmp_path / "other.yaml")], small.corpus)


def test_the_draft_is_an_arm_once_there_is_one(tmp_path: Path) -> None:
    fresh = make_compared(tmp_path, pairs=40)
    with pytest.raises(UserError, match="mmdata build"):
        open_arms(["draft"], fresh.corpus)
    select_samples(changed(fresh.corpus, "select.filter.top_fraction=0.5"), fresh.workspace)
    arm = open_arms(["draft"], fresh.corpus)[0]
    assert arm.samples is not None
    assert arm.samples["uid"].is_sorted()
    assert len(arm.samples) == 20
    with pytest.raises(UserError, match="no release yet"):
        open_arms(["latest"], fresh.corpus)


def test_a_release_is_an_arm_by_its_folder(tmp_path: Path) -> None:
    workspace = write_release(tmp_path / "made", mixed_samples())
    arm = open_arms([str(workspace.root)], None)[0]
    assert arm.release is not None
    assert arm.name == arm.release.id
    assert arm.samples is not None
    assert arm.samples["repeats"].max() == 3


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.txt"])
def test_a_table_of_uids_is_an_arm(small: Compared, tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"uid": small.uids[:3], "repeats": [1, 2, 0]})
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.write_parquet(path)
    elif name.endswith("csv"):
        frame.write_csv(path)
    else:
        path.write_text("\n".join(small.uids[:2]))
    arm = open_arms([str(path)], small.corpus)[0]
    assert arm.name == "t"
    assert arm.samples is not None
    assert sorted(arm.samples["uid"]) == sorted(small.uids[:2])


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["raw", "raw"], "first:raw"),
        (["nothing"], "no release"),
        (["select.filter.top_fraction=x y"], "top_fraction"),
        (["select.filter.topfraction=1"], "did you mean `top_fraction`"),
        (["select.filter.top_fraction=0.5;seed=3"], "'seed=3' is not select.KEY=VALUE"),
        (["select.filter.top_fraction=["], "not a YAML value"),
        (["missing.parquet"], "cannot be read"),
    ],
)
def test_a_wrong_arm_is_named(small: Compared, specs: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace("[", r"\[")):
        open_arms(specs, small.corpus)


def test_without_a_corpus_only_releases_are_arms() -> None:
    for spec in ("raw", "draft", "latest", "select.filter.top_fraction=0.5"):
        with pytest.raises(UserError, match=r"--config corpus\.yaml"):
            open_arms([spec], None)
