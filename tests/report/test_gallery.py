"""Which samples the report shows, on a release made by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mmdata.report.gallery import MAX_PAIRS, MAX_SAMPLES, choose, fill
from mmdata.storage.tables import scan_tables
from tests.support import tiny_release
from tests.support.tiny_release import Tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_release.build(tmp_path_factory.mktemp("gallery"), samples=80)


def selection(tiny: Tiny) -> pl.LazyFrame:
    return scan_tables([tiny.folder / "selection.parquet"])


def test_the_best_and_the_worst_are_those_of_the_kept_samples_by_score(tiny: Tiny) -> None:
    gallery = choose(selection(tiny), [])
    kept = selection(tiny).filter("keep").sort("clip_score", "uid").collect()["uid"].to_list()
    assert gallery.worst == kept[:MAX_SAMPLES]
    assert set(gallery.best) == set(kept[-MAX_SAMPLES:])
    assert gallery.drawn == sorted(tiny.split)[: 2 * MAX_SAMPLES]


def test_dropped_samples_are_shown_by_reason_and_duplicates_beside_what_stays(tiny: Tiny) -> None:
    gallery = choose(selection(tiny), [])
    assert list(gallery.dropped) == ["filter:clip_score"]
    assert set(gallery.dropped["filter:clip_score"]).isdisjoint(tiny.split)
    assert list(gallery.pairs) == ["duplicate:phash"]
    assert 0 < len(gallery.pairs["duplicate:phash"]) <= MAX_PAIRS


def test_each_chosen_sample_has_a_card_with_its_caption_and_picture(tiny: Tiny) -> None:
    concepts = [f"c{number}|image+text" for number in range(5)]
    gallery = fill(choose(selection(tiny), concepts), selection(tiny), tiny.workspace)
    assert set(gallery.common) == set(concepts[:4]) and set(gallery.rare) == {concepts[4]}
    assert set(gallery.cards) == gallery.uids()
    for uid, card in gallery.cards.items():
        assert card.stored.caption == tiny.caption[uid]
        assert str(card.stored.image).startswith("data:image/jpeg;base64,")


def test_an_empty_selection_gives_an_empty_gallery(tmp_path: Path) -> None:
    empty = tiny_release.build(tmp_path, samples=0)
    assert choose(selection(empty), []).uids() == set()
