"""Three releases of one pool: what each holds, and that nothing is fetched or copied for them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from benchmarks.worth.corpora import VARIANTS, carve, release, variant_of
from mmdata.errors import UserError
from mmdata.releases.manifest import open_release
from mmdata.workspace.layout import Workspace
from tests.support.workspaces import Built, build

SELECT = {
    "filter": {"top_fraction": 0.5},
    "dedup": {"semantic_eps": None, "clusters": 4},
    "oversample": {"threshold": 1.0, "max_repeats": 4},
}


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Eighty captions, each of a concept of its own: the release repeats them all."""
    (tmp_path / "concepts.txt").write_text("\n".join(map(str, range(80))))
    select = {**SELECT, "balance": {"concepts": str(tmp_path / "concepts.txt")}}
    parts = {"web-000000": range(40), "web-000001": range(40, 80)}
    return build(str(tmp_path / "workspace"), parts, select=select)


def index(workspace: Path) -> pl.DataFrame:
    return pl.read_parquet(open_release(str(workspace)).folder / "index.parquet")


def test_the_variants_hold_what_their_names_say(built: Built, tmp_path: Path) -> None:
    uids = sorted(built.captions)
    pool = carve(built.corpus, tmp_path / "pool", uids[8:])
    found = {}
    for name in VARIANTS:
        found[name] = release(built.corpus, pool, name, tmp_path / name, None)
    frames = {name: index(tmp_path / name) for name in VARIANTS}
    assert {frame["split"].unique().item() for frame in frames.values()} == {"train"}
    assert sorted(frames["raw"]["uid"]) == uids[8:], "every sample once"
    assert set(frames["unbalanced"]["uid"]) <= set(uids[8:])
    assert found["unbalanced"].samples == found["unbalanced"].distinct == 36, "the filter's half, each once"
    assert found["release"].samples > found["release"].distinct, "the release repeats"
    assert not any(set(frame["uid"]) & set(uids[:8]) for frame in frames.values()), "nothing that was held out"


def test_pictures_are_linked_not_copied(built: Built, tmp_path: Path) -> None:
    pool = carve(built.corpus, tmp_path / "pool", sorted(built.captions)[:10])
    tars = list(Path(pool.root.path).rglob("media/*.tar"))
    assert tars
    assert all(tar.is_symlink() for tar in tars)
    release(built.corpus, pool, "raw", tmp_path / "raw", None)
    assert (tmp_path / "raw" / "parts").resolve() == (tmp_path / "pool" / "parts").resolve()


def test_a_workspace_with_nothing_to_release_is_refused(built: Built, tmp_path: Path) -> None:
    empty = built.corpus.model_copy(update={"workspace": str(tmp_path / "empty")})
    Workspace(empty.workspace).write_catalog(built.workspace.catalog())
    with pytest.raises(UserError, match="no part may be released"):
        carve(empty, tmp_path / "pool", [])


def test_the_release_variant_selects_as_the_corpus_says(built: Built) -> None:
    assert variant_of(built.corpus, "release", "x").select == built.corpus.select
    assert variant_of(built.corpus, "unbalanced", "x").select.filter == built.corpus.select.filter
    assert variant_of(built.corpus, "raw", "x").select.filter != built.corpus.select.filter


def test_another_choice_of_samples_makes_another_release(built: Built, tmp_path: Path) -> None:
    uids = sorted(built.captions)
    for count in (20, 30):  # in the same folders
        pool = carve(built.corpus, tmp_path / "pool", uids[:count])
        assert release(built.corpus, pool, "raw", tmp_path / "raw", None).samples == count
