"""Garbage collection: nothing that a kept release needs is ever deleted, wherever the collector is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import UserError
from mmdata.publish.verify import verify_release
from mmdata.releases.collect import collect_garbage
from mmdata.releases.draft import read_draft
from mmdata.releases.manifest import open_release
from mmdata.releases.pins import pin, roll_back
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.storage.atomic import TEMPORARY
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased
from tests.releases.conftest import RELEASES, Grown, build_history
from tests.support.buckets import s3_bucket
from tests.support.pair_vectors import pairs
from tests.support.selecting import build, corpus_for, sample
from tests.support.workspaces import Built, add_parts, copy_of, release


def contents(workspace: Workspace, ids: list[str]) -> dict[str, bytes]:
    """Every byte of releases: their own files and their shards."""
    data = {}
    for name in ids:
        folder = workspace.release_dir(name)
        shards = [workspace.shards_dir / shard["name"] for shard in open_release(folder).manifest["shards"]]
        for path in (*(path for path in folder.rglob("*") if path.is_file()), *shards):
            data[str(path)] = path.read_bytes()
    return data


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_kept_releases_stay_byte_for_byte_as_they_were(
    tmp_path: Path, history: tuple[Built, list[str]], seed: int
) -> None:
    built, ids = history if seed == 0 else build_history(tmp_path / "other", seed)
    pin(built.workspace, ids[0])
    kept = [ids[0], *ids[-2:]]
    before = contents(built.workspace, kept)
    garbage = collect_garbage(built.workspace, keep=2)
    assert set(garbage.releases) == set(ids) - set(kept)
    assert set(built.workspace.releases()) == set(kept)
    assert contents(built.workspace, kept) == before
    for name in kept:
        verify_release(built.workspace.release_dir(name))
    shards = {Path(path).name for path in before if path.endswith(".tar")}
    assert {path.name for path in built.workspace.shards_dir.glob("*.tar")} == shards
    recipes = [read_json(path) or {} for path in (built.workspace.shards_dir / "recipes").glob("*.json")]
    assert {recipe["name"] for recipe in recipes} == shards
    assert release(built) == ids[-1]
    assert collect_garbage(built.workspace, keep=2).bytes == 0


def collect_all_but_the_latest(workspace: Workspace, ids: list[str]) -> None:
    before = contents(workspace, ids[-1:])
    planned = collect_garbage(workspace, keep=1, dry_run=True)
    assert set(workspace.releases()) == set(ids)
    garbage = collect_garbage(workspace, keep=1)
    assert garbage.counts() == planned.counts()
    assert garbage.bytes > 0
    assert workspace.releases() == ids[-1:]
    assert contents(workspace, ids[-1:]) == before


def test_a_dry_run_counts_what_the_next_run_deletes(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    collect_all_but_the_latest(built.workspace, ids)


def test_releases_on_an_object_store_are_collected(shared_grown: Grown) -> None:
    import s3fs

    with s3_bucket() as bucket:
        s3fs.S3FileSystem().put(f"{shared_grown.built.workspace.root.path}/", f"{bucket}/", recursive=True)
        collect_all_but_the_latest(Workspace(bucket), [shared_grown.first, shared_grown.second])


def test_kill_at_any_deletion_leaves_kept_releases_whole_and_a_second_run_finishes(
    shared_history: tuple[Built, list[str]],
    history: tuple[Built, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = copy_of(shared_history[0], tmp_path / "reference")
    pin(reference.workspace, reference.workspace.releases()[0])
    deletions = len(_deletions_of(reference.workspace, monkeypatch))
    left = sorted(_names(reference.workspace))
    assert deletions > 20
    built, ids = history
    pin(built.workspace, built.workspace.releases()[0])
    kills = 0
    while True:  # each time one deletion further
        try:
            with _killed_after(1, monkeypatch):
                collect_garbage(built.workspace, keep=1, grace_s=0)
        except _KilledError:
            kills += 1
            assert built.workspace.latest() == ids[-1]
            missing = [_missing(built.workspace, name) for name in built.workspace.releases()]
            assert not any(missing), f"after {kills} kills"
        else:
            break
    assert kills >= deletions - 1
    assert sorted(_names(built.workspace)) == left
    verify_release(built.workspace.release_dir(ids[-1]))


def test_the_draft_of_a_build_that_is_under_way_stays(history: tuple[Built, list[str]]) -> None:
    built, _ = history
    add_parts(built, {"web-000009": range(400, 430)})
    select_samples(built.corpus, built.workspace)
    written = write_shards(built.corpus, built.workspace).counts["shards_written"]
    assert written > 0
    draft = read_draft(built.workspace).release_id
    garbage = collect_garbage(built.workspace, keep=1, grace_s=0)
    assert draft not in garbage.abandoned
    assert write_shards(built.corpus, built.workspace).counts["shards_written"] == 0
    assert release(built) == draft


def test_shards_of_a_killed_build_stay_for_a_day(history: tuple[Built, list[str]]) -> None:
    built, _ = history
    add_parts(built, {"web-000009": range(400, 430)})
    select_samples(built.corpus, built.workspace)
    write_shards(built.corpus, built.workspace)
    draft = read_draft(built.workspace).release_id
    (built.workspace.release_dir(draft) / "shards.json").unlink()  # killed before it could say what it had written
    half = built.workspace.shards_dir / f"{TEMPORARY}0123-train.tar"
    half.write_bytes(b"half")
    collect_garbage(built.workspace, keep=1)
    assert half.exists()
    assert write_shards(built.corpus, built.workspace).counts["shards_written"] == 0
    (built.workspace.release_dir(draft) / "shards.json").unlink()
    garbage = collect_garbage(built.workspace, keep=1, grace_s=0)
    assert not half.exists()
    assert len(garbage.shards) > 0
    assert release(built) == draft
    verify_release(built.workspace.release_dir(draft))


def test_abandoned_drafts_and_unaddressed_media_go(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    lost = built.workspace.release_dir("0" * 16) / "energon"
    lost.mkdir(parents=True)
    (lost / "selection.parquet").write_bytes(b"of a release that was never made")
    tar = built.workspace.part_dir("web-000000") / "media" / "0000-0123456789ab.tar"
    tar.write_bytes(b"of an earlier fetch")
    with leased(built.workspace, "part-web-000000", "a build"):
        assert collect_garbage(built.workspace, keep=RELEASES).busy == ("web-000000",)
        assert tar.exists()
    assert not lost.parent.exists()
    collect_garbage(built.workspace, keep=RELEASES)
    assert not tar.exists()
    assert set(built.workspace.releases()) == set(ids)
    add_parts(built, {"web-000009": range(400, 430)})
    release(built)


def test_latest_and_pinned_releases_cannot_be_dropped(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    pin(built.workspace, ids[0])
    for name, why in ((ids[0], "pinned"), (ids[-1], "latest")):
        with pytest.raises(UserError, match=why):
            collect_garbage(built.workspace, keep=1, drop=frozenset({name}))
    garbage = collect_garbage(built.workspace, keep=RELEASES, drop=frozenset({ids[2]}))
    assert garbage.releases == (ids[2],)


def test_a_release_rolled_back_to_stays_however_old_it_is(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    roll_back(built.workspace, ids[0])
    collect_garbage(built.workspace, keep=1)
    assert set(built.workspace.releases()) == {ids[0], ids[-1]}
    verify_release(built.workspace.release_dir(ids[0]))


def test_collecting_waits_for_a_build_or_says_who_it_is(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    with leased(built.workspace, "release", "shards"), pytest.raises(UserError, match="held by shards"):
        collect_garbage(built.workspace, keep=1)
    assert set(built.workspace.releases()) == set(ids)


class _KilledError(BaseException):
    pass


@contextmanager
def _killed_after(deletions: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The process ends after so many deletions of files of ours."""
    done: list[str] = []
    real = os.unlink

    def unlink(path: str | Path, **options: int) -> None:
        if "/leases/" in str(path):
            real(path, **options)
            return
        if len(done) == deletions:
            raise _KilledError
        real(path, **options)
        done.append(str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        patch.setattr(os, "remove", unlink)
        yield done


def _deletions_of(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with _killed_after(10**9, monkeypatch) as done:
        collect_garbage(workspace, keep=1, grace_s=0)
    return done


def _names(workspace: Workspace) -> list[str]:
    folder = Path(workspace.root.path)
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if "leases" not in path.parts]


def _missing(workspace: Workspace, release_id: str) -> list[str]:
    manifest = open_release(workspace.release_dir(release_id)).manifest
    shards = [workspace.shards_dir / shard["name"] for shard in manifest["shards"]]
    files = [workspace.release_dir(release_id) / name for name in manifest["files"]]
    return [str(path) for path in (*shards, *files) if not path.exists()]


def test_a_half_written_note_of_a_shard_is_not_read(history: tuple[Built, list[str]]) -> None:
    built, ids = history
    torn = built.workspace.shards_dir / "recipes" / f"{TEMPORARY}0123456789ab-recipe.json"
    torn.write_bytes(b'{"name": "trai')
    assert collect_garbage(built.workspace, keep=1).releases
    assert torn.exists(), "it is young, and may be another process's"
    verify_release(built.workspace.release_dir(ids[-1]))


def test_kept_scores_are_deleted_where_the_latest_selection_does_not_use_them_and_the_bank_stays(
    tmp_path: Path,
) -> None:
    pictures, texts = pairs(20, 8)
    rows = [sample(number, embedding=pictures[number], text_embedding=texts[number]) for number in range(20)]

    def select(name: str, slices: list[list[dict[str, Any]]]) -> Workspace:
        scores = {"loss": {"kind": "s-clip-loss", "bank_pairs": 8}, "spread": {"kind": "vas", "bank_pairs": 8}}
        corpus = corpus_for(tmp_path, {"scores": scores, "keep_scores": [name]})
        workspace = build(corpus, {"web-000000": slices})
        select_samples(corpus, workspace)
        return workspace

    workspace = select("loss", [rows[:10], rows[10:]])
    files = sorted(workspace.scores_dir.rglob("*.np*"))
    assert len(files) == 3
    assert collect_garbage(workspace, keep=1, grace_s=0).scores == ()
    select("loss", [rows[:10], rows[12:]])
    assert len(collect_garbage(workspace, keep=1, grace_s=0).scores) == 1, "of the slice that has changed"
    select("spread", [rows[:10], rows[12:]])
    assert collect_garbage(workspace, keep=1).scores == (), "they are young: a build may be under way"
    garbage = collect_garbage(workspace, keep=1, grace_s=0)
    assert garbage.counts()["scores"] == 2
    left = sorted(path.suffix for path in workspace.scores_dir.rglob("*.np*"))
    assert left == [".npy", ".npy", ".npz"]
