"""Dagster's own storage forgets the captions that it showed."""

from pathlib import Path

import dagster as dg
import pytest

from mmdata.workspace.layout import Workspace
from pipelines.instance import open_instance
from pipelines.run_removal import delete_runs

NEEDLE = b"a caption that somebody wants forgotten"
KEPT = b"a caption of another part"


def test_runs_that_showed_a_sample_are_gone_from_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    workspace = Workspace(str(tmp_path / "workspace"))

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["web-000000", "web-000001"]))
    def features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        text = NEEDLE if context.partition_key == "web-000000" else KEPT
        return dg.MaterializeResult(metadata={"samples": text.decode()})

    with open_instance(workspace) as instance:
        for part in ("web-000001", "web-000000"):
            dg.materialize([features], partition_key=part, instance=instance)
    assert holders(tmp_path, NEEDLE)
    assert delete_runs(workspace, {"web-000000"}) == 1
    assert holders(tmp_path, NEEDLE) == []
    assert holders(tmp_path, KEPT), "another part's runs stay"
    with open_instance(workspace) as instance:
        assert len(instance.get_runs()) == 1


def holders(folder: Path, needle: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]
