"""A release that lost much, or everything, is held: it is the latest only once a person says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.errors import UserError
from mmdata.inspect import next_release
from mmdata.inspect.audit import no_sudden_change
from mmdata.inspect.corpus_status import corpus_status, to_json
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.releases.draft import read_draft
from mmdata.releases.holds import hold_reason, read_hold
from mmdata.releases.listing import list_releases
from mmdata.releases.manifest import open_release
from mmdata.releases.pins import roll_back, rolled_back
from mmdata.report.stage import report_release
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from tests.support.workspaces import SELECT_ALL, Built, add_parts, build, copy_of, release

PARTS = {"web-000000": range(20), "web-000001": range(20, 40)}


def publish(built: Built) -> str:
    """Run the publish stages; what the last one says of the latest release."""
    for stage in (select_samples, write_shards, write_instructions):
        stage(built.corpus, built.workspace)
    return publish_release(built.corpus, built.workspace).text["latest"]


def made(built: Built) -> str:
    return read_draft(built.workspace).release_id


def shrunk(built: Built, root: Path, concepts: str) -> Built:
    """A copy of the workspace, whose next release keeps only what a concept list names."""
    (root.parent / "concepts.txt").write_text(concepts)
    balance = {"max_ratio": None, "concepts": str(root.parent / "concepts.txt")}
    return copy_of(built, root, select={**SELECT_ALL, "balance": balance})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A workspace of 40 samples and their release. Only to be read."""
    built = build(str(tmp_path_factory.mktemp("first") / "workspace"), PARTS)
    release(built)
    return built


def test_a_release_without_samples_never_becomes_the_latest(first: Built, tmp_path: Path) -> None:
    built = shrunk(first, tmp_path / "workspace", "nothing like it\n")
    before = built.workspace.latest()
    said = publish(built)
    assert said.startswith(
        f"stays `{before}`: release `{made(built)}` holds no sample (dropped most: balance:concept 40)"
    )
    assert "Remedy: change the setting" in said
    assert built.workspace.latest() == before
    with pytest.raises(UserError, match=r"holds no sample, and cannot be the latest\. Remedy"):
        roll_back(built.workspace, made(built))
    report_release(built.workspace.release_dir(made(built)))


def test_a_first_release_without_samples_is_held_too(tmp_path: Path) -> None:
    built = build(str(tmp_path), PARTS, select={**SELECT_ALL, "filter": {"min_clip_score": 1.0}})
    assert publish(built).startswith("stays without a release: release")
    assert built.workspace.latest() is None
    hold = read_hold(built.workspace)
    assert hold is not None
    assert hold["release"] == made(built)


def test_the_command_that_a_held_release_names_makes_it_the_latest(first: Built, tmp_path: Path) -> None:
    built = shrunk(first, tmp_path / "workspace", "\n".join(f"number {number}" for number in range(12)))
    before, said = built.workspace.latest(), publish(built)
    assert f"release `{made(built)}` keeps 12 samples, the latest one 40 (releases.max_loss 0.6)" in said
    assert built.workspace.latest() == before
    assert said == publish(built), "the same inputs are held the next night, too"
    config = tmp_path / "corpus.yaml"
    config.write_text(yaml.safe_dump(built.corpus.model_dump(mode="json", exclude_none=True)))
    (command,) = re.findall(r"`mmdata ([^`]+)`", said)
    done = CliRunner().invoke(app, [*command.split(), "-c", str(config)])
    assert done.exit_code == 0, done.output
    assert built.workspace.latest() == made(built)
    assert rolled_back(built.workspace) == {}, "a step forward rolls nothing back"
    assert read_hold(built.workspace) is None
    assert publish(built) == f"`{made(built)}`"


def test_a_held_release_shows_in_status_in_the_list_and_in_the_check(first: Built, tmp_path: Path) -> None:
    built = shrunk(first, tmp_path / "workspace", "number 7\n")
    publish(built)
    status = corpus_status(built.corpus, built.workspace)
    assert status.hold is not None
    assert json.loads(to_json(status, None, None))["held"]["release"] == made(built)
    assert {listed.release_id for listed in list_releases(built.workspace) if listed.is_held} == {made(built)}
    finding = no_sudden_change(built.workspace)
    assert not finding.passed
    assert finding.summary.startswith(f"held: release `{made(built)}` keeps 1 samples")
    config = tmp_path / "corpus.yaml"
    config.write_text(yaml.safe_dump(built.corpus.model_dump(mode="json", exclude_none=True)))
    forecast = next_release.forecast(built.corpus, built.workspace, [], opt_out_changes=False)
    assert forecast.verdict == "stands"
    assert forecast.why[0].startswith(f"the same inputs made {made(built)}, which is held: ")
    said = CliRunner().invoke(app, ["status", "-c", str(config)]).output
    assert f"held: release `{made(built)}`" in said


def test_a_mended_setting_ends_the_hold(first: Built, tmp_path: Path) -> None:
    built = shrunk(first, tmp_path / "workspace", "number 7\n")
    publish(built)
    add_parts(built := Built(first.corpus, built.workspace), {"web-000002": range(40, 45)})
    assert publish(built) == f"`{made(built)}`"
    assert read_hold(built.workspace) is None


def test_losses_within_the_limit_and_of_opted_out_samples_are_no_reason(first: Built, tmp_path: Path) -> None:
    built = copy_of(first, tmp_path / "workspace")
    manifest = open_release(built.workspace.root).manifest | {"release_id": "next"}
    limits = built.corpus.releases

    def why(kept: int, opted_out: int = 0) -> str | None:
        changed = {"counts": manifest["counts"] | {"kept": kept}, "reasons": {"opt_out": opted_out}}
        return hold_reason(built.workspace, manifest | changed, limits)

    assert why(16) is None
    assert why(15) is not None
    assert why(6, opted_out=10) is None
    assert why(5, opted_out=10) is not None
    assert (
        hold_reason(built.workspace, manifest | {"counts": {"kept": 1}}, limits.model_copy(update={"max_loss": 1.0}))
        is None
    )
