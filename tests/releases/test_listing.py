"""The list of releases: its order, and what each release would free."""

from __future__ import annotations

import json

from mmdata.releases.listing import list_releases, read_manifests
from mmdata.releases.pins import pin, roll_back
from tests.support.workspaces import Built


def test_releases_are_listed_with_their_marks_and_sizes(history: tuple[Built, list[str]]) -> None:
    built, (first, second, *later) = history
    pin(built.workspace, first, "of the paper")
    roll_back(built.workspace, second, "a bad source")
    listed = list_releases(built.workspace)
    assert [release.release_id for release in listed] == [*later[::-1], second, first]
    by_id = {release.release_id: release for release in listed}
    assert (by_id[first].is_pinned, by_id[first].note, by_id[first].parent) == (True, "of the paper", None)
    assert (by_id[second].is_latest, by_id[second].parent) == (True, first)
    assert all(by_id[name].is_rolled_back and by_id[name].note == "a bad source" for name in later)
    for release in listed:
        others = {
            s["name"]
            for m in read_manifests(built.workspace)
            if m["release_id"] != release.release_id
            for s in m["shards"]
        }
        own = [path for path in built.workspace.shards_dir.glob("*.tar") if path.name not in others]
        assert release.own_bytes == sum(path.stat().st_size for path in own)


def test_releases_of_one_second_and_of_a_circle_of_parents_are_in_order(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    for name in ids:
        path = built.workspace.release_dir(name) / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"created_at": "2026-01-01T00:00:00+00:00"}))
    assert [manifest["release_id"] for manifest in read_manifests(built.workspace)] == ids[::-1]
    path = built.workspace.release_dir(ids[0]) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parent": ids[-1]}))
    assert {manifest["release_id"] for manifest in read_manifests(built.workspace)} == set(ids)
