"""Opening a release by its folder, by `latest` or by its workspace; a broken manifest is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmdata.config.load import parse_corpus
from mmdata.errors import DataError, UserError
from mmdata.releases.manifest import find_manifest, manifest_digest, open_release, public_config
from tests.releases.conftest import Grown


def test_folder_latest_and_workspace_open_the_same_release(shared_grown: Grown) -> None:
    workspace = shared_grown.built.workspace
    for path in (workspace.root, workspace.releases_dir / "latest", workspace.release_dir(shared_grown.second)):
        release = open_release(path)
        assert (release.id, release.workspace.root) == (shared_grown.second, workspace.root)
    assert find_manifest(workspace, shared_grown.second) == release.manifest
    assert find_manifest(workspace, None) is None
    with pytest.raises(UserError, match=r"no release there .*Remedy"):
        open_release(workspace.shards_dir)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": 99}, "format 99"),
        ({"digest": None}, "lacks digest"),
        ({"release_id": ".."}, "no plain name"),
        ({"shards": [{"name": "../../x.tar"}]}, "no plain name"),
        ({"files": {"energon/../../x": {}}}, "no plain name"),
    ],
)
def test_a_broken_manifest_is_refused(grown: Grown, change: dict[str, Any], problem: str) -> None:
    path = grown.built.workspace.release_dir(grown.first) / "manifest.json"
    manifest = {name: value for name, value in (json.loads(path.read_text()) | change).items() if value is not None}
    manifest.setdefault("parent", None)
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=problem) as error:
        open_release(path.parent)
    assert str(path) in str(error.value)


def test_the_digest_covers_everything_but_the_time_and_itself(shared_grown: Grown) -> None:
    manifest = open_release(shared_grown.built.workspace.root).manifest
    assert manifest_digest(manifest) == manifest["digest"]
    assert manifest_digest(manifest | {"created_at": "", "digest": ""}) == manifest["digest"]
    assert manifest_digest(manifest | {"counts": {}}) != manifest["digest"]


def test_the_public_settings_hold_no_password() -> None:
    source = {"name": "web", "kind": "laion", "files": "https://me:secret@example.org/a.parquet"}
    headers = {"X-Api-Key": "secret", "Cookie": "a=secret", "Referer": "https://a.example/"}
    settings = {"workspace": "/tmp/w", "sources": [source], "download": {"headers": headers}}
    shown = json.dumps(public_config(parse_corpus(settings)))
    assert "secret" not in shown
    assert "https://a.example/" in shown
