"""Decontamination: each way of matching, against plain comparisons, and in a whole selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.releases.draft import read_draft
from mmdata.report.funnel import funnel
from mmdata.select.decontaminate import reaches
from mmdata.select.dedup import near_any
from mmdata.select.selection_summary import Summary
from mmdata.select.stage import select_samples
from tests.support.pair_vectors import unit_vectors
from tests.support.selecting import build, corpus_for, sample, selection

LOOSE = {"balance": {"max_ratio": None}, "oversample": {"max_repeats": 1}}
NO_DEDUP = {"url": False, "exact": False, "phash_bits": None, "semantic_eps": None, "text_similarity": None}
TEXT = "Which of these towns lies furthest to the north of the river?"


@pytest.fixture(autouse=True)
def _nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Summary, "images", lambda summary, scorer: {})


HASHES = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([2**n - 1 for n in range(1, 40)]), max_size=30)


@given(HASHES, HASHES, st.integers(0, 5))
def test_near_hashes_are_those_of_all_pairs(ours: list[int], theirs: list[int], bits: int) -> None:
    plain = [any((one ^ other).bit_count() <= bits for other in theirs) for one in ours]
    assert near_any(np.array(ours, np.uint64), np.array(theirs, np.uint64), bits).tolist() == plain


@given(st.integers(0, 1000), st.sampled_from([0.2, 0.5, 0.75, 1.0]))
def test_near_vectors_are_those_of_all_pairs(seed: int, least: float) -> None:
    ours, theirs = unit_vectors(40, 4, seed=seed), unit_vectors(15, 4, seed=seed + 1)
    theirs[0] = ours[0]
    exact = ours.astype(np.float64) @ theirs.astype(np.float64).T
    assert (reaches(ours, theirs, least) == (exact >= least).any(axis=1)).all()


def matched(tmp_path: Path, samples: list[list[dict[str, Any]]], tables: dict[str, dict[str, Any]], **keys: Any) -> Any:
    """Reasons by URL of a selection without these samples' duplicates being looked for."""
    sets = []
    for name, table in tables.items():
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
        sets.append({"name": name, "table": str(tmp_path / f"{name}.parquet"), **keys})
    corpus = corpus_for(tmp_path, {"dedup": NO_DEDUP, **LOOSE, "decontaminate": sets})
    workspace = build(corpus, {"web-000000": samples})
    report = select_samples(corpus, workspace)
    kept = selection(workspace)
    return dict(zip(kept["uid"], kept["reason"], strict=True)), report, workspace, corpus


def pictures(count: int) -> list[dict[str, Any]]:
    vectors = unit_vectors(count, 8, seed=5)
    return [
        sample(n, embedding=vectors[n], phash=int(np.random.default_rng(n).integers(2**63)), sha256=f"{n:064x}")
        for n in range(1, count)
    ]


def test_each_way_of_matching_has_the_reason_of_its_set(tmp_path: Path) -> None:
    given_ = pictures(12)
    given_[4]["sha256"] = "ab" * 32
    text = sample(20, kind="text", url=None, caption=TEXT.upper().replace("?", "!"), sha256=None, phash=None)
    short = sample(21, kind="text", url=None, caption="Two plus two?", sha256=None, phash=None)
    tables: dict[str, dict[str, Any]] = {
        "by-url": {"url": [given_[0]["url"]]},
        "by-hash": {"phash": pa.array([given_[1]["phash"] ^ 0b1011], pa.uint64())},
        "by-far-hash": {"phash": pa.array([given_[2]["phash"] ^ 0b11111], pa.uint64())},
        "by-vector": {"embedding": [given_[3]["embedding"].astype(np.float64).tolist()]},
        "by-bytes": {"sha256": ["ab" * 32]},
        "by-text": {"text": [TEXT, "two PLUS two? "]},
    }
    reasons, report, _, _ = matched(tmp_path, [given_[:6], [*given_[6:], text, short]], tables)
    expected = {given_[0]["uid"]: "by-url", given_[1]["uid"]: "by-hash", given_[3]["uid"]: "by-vector"}
    expected |= {given_[4]["uid"]: "by-bytes", text["uid"]: "by-text", short["uid"]: "by-text"}
    assert {uid: reason for uid, reason in reasons.items() if reason} == {
        uid: f"contaminated:{name}" for uid, name in expected.items()
    }
    assert report.reasons["contaminated:by-text"] == 2
    steps = {step.name: step for step in funnel(13, 13, 7, report.reasons)}
    assert (steps["in no evaluation set"].left, steps["in no evaluation set"].lost) == (7, 6)


def test_another_caption_language_or_source_is_still_the_same_picture(tmp_path: Path) -> None:
    first = pictures(3)[0]
    again = {**sample(30, caption="ein Turm am Fluss"), "source": "other", "lang": "de"}
    again |= {name: first[name] for name in ("embedding", "phash")}
    reasons, *_ = matched(tmp_path, [[first, again]], {"eval": {"phash": pa.array([first["phash"]], pa.uint64())}})
    assert set(reasons.values()) == {"contaminated:eval"}


def test_ways_that_are_off_match_nothing(tmp_path: Path) -> None:
    given_ = pictures(4)
    table = {
        "phash": pa.array([given_[0]["phash"]], pa.uint64()),
        "embedding": [given_[1]["embedding"].astype(np.float64).tolist()],
    }
    reasons, *_ = matched(tmp_path, [given_], {"eval": table}, phash_bits=None, min_cosine=None)
    assert set(reasons.values()) == {None}


def test_no_cut_into_slices_and_no_order_changes_what_is_contaminated(tmp_path: Path) -> None:
    given_ = pictures(30)
    table = {
        "phash": pa.array([row["phash"] ^ 1 for row in given_[::4]], pa.uint64()),
        "embedding": [row["embedding"].astype(np.float64).tolist() for row in given_[::4]],
    }
    cuts = [[given_], [given_[:7], given_[7:]], [given_[20:][::-1], given_[:20]]]
    decided = []
    for number, cut in enumerate(cuts):
        (tmp_path / str(number)).mkdir()
        decided.append(matched(tmp_path / str(number), cut, {"eval": table})[0])
    assert decided[0] == decided[1] == decided[2]
    assert sum(reason is not None for reason in decided[0].values()) == 8


def test_a_set_that_is_missing_or_does_not_fit_makes_no_release(tmp_path: Path) -> None:
    given_ = pictures(4)
    _, _, workspace, corpus = matched(tmp_path, [given_], {"eval": {"url": ["http://x.org/none"]}})
    before = read_draft(workspace).release_id
    pq.write_table(pa.table({"url": [given_[0]["url"]]}), tmp_path / "eval.parquet")
    assert select_samples(corpus, workspace).version != before, "a changed set is another release"
    pq.write_table(pa.table({"embedding": [[1.0, 0.0]]}), tmp_path / "eval.parquet")
    with pytest.raises(UserError, match="embeddings of 2 numbers, and the corpus of 8"):
        select_samples(corpus, workspace)
    (tmp_path / "eval.parquet").unlink()
    with pytest.raises(UserError, match="no such file or folder"):
        select_samples(corpus, workspace)


def test_clips_and_sounds_match_by_the_url_of_their_film(tmp_path: Path) -> None:
    clip = sample(40, kind="video", url="https://v.org/film.mp4", start_s=10.0, end_s=20.0)
    other = sample(41, kind="video", url="https://v.org/other.mp4", start_s=10.0, end_s=20.0)
    reasons, *_ = matched(tmp_path, [[clip, other]], {"eval": {"url": ["https://V.org/film.mp4"]}})
    assert reasons == {clip["uid"]: "contaminated:eval", other["uid"]: None}


def test_the_reason_of_the_first_set_stands(tmp_path: Path) -> None:
    given_ = pictures(3)
    table = {"url": [given_[0]["url"]]}
    reasons, *_ = matched(tmp_path, [given_], {"one": table, "two": table})
    assert pl.Series(list(reasons.values())).drop_nulls().to_list() == ["contaminated:one"]
