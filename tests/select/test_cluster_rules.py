"""The selection by scores, targets and density as a whole: any cut and order, growth, bad rows, and what is shown."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from upath import UPath

from mmdata.errors import UserError
from mmdata.inspect.story import explain
from mmdata.select.selection_summary import Summary
from mmdata.select.stage import select_samples
from mmdata.storage.tables import write_table
from tests.support.pair_vectors import pairs, unit_vectors
from tests.support.selecting import build, corpus_for, publish, sample, selection

PICTURES, TEXTS = pairs(260, 8, seed=4)


DRAW = Summary.images


@pytest.fixture(autouse=True)
def _nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of the time; a test that looks at them puts `DRAW` back."""
    monkeypatch.setattr(Summary, "images", lambda summary, scorer: {})


def samples(count: int) -> list[dict[str, Any]]:
    """Pairs, of which some are texts, have no caption, no vectors, or could not be fetched."""
    made = []
    for number in range(count):
        given: dict[str, Any] = {"embedding": PICTURES[number], "text_embedding": TEXTS[number]}
        given["extra"] = f'{{"similarity": {number % 10 / 10}}}' if number % 3 else None
        if number % 20 == 1:
            given = {"kind": "text", "url": None, "sha256": None, "phash": None, "clip_score": None}
        elif number % 20 == 2:
            given |= {"caption": None, "clip_score": None, "text_embedding": None}
        elif number % 20 == 3:
            given |= {"embedding": None, "text_embedding": None}
        elif number % 20 == 4:
            nothing = dict.fromkeys(("clip_score", "embedding", "text_embedding"))
            given |= {"status": "failed_to_download", "error": "http_404", **nothing}
        made.append(sample(number, **given))
    return made


def settings(tmp_path: Path) -> dict[str, Any]:
    """Every rule of this issue at once."""
    target = {"table": str(tmp_path / "target.parquet")}
    vectors = pa.array(list(PICTURES[:40:4]), pa.list_(pa.float16()))
    write_table(UPath(target["table"]), pa.table({"embedding": vectors}))
    return {
        "scores": {
            "loss": {"kind": "s-clip-loss", "bank_pairs": 50, "temperature": 0.1},
            "like": {"kind": "norm-sim", "target": target},
            "given": {"kind": "column", "column": "similarity"},
        },
        "filter": {
            "min_scores": {"given": 0.15},
            "max_scores": {"sharpness": 1000},
            "top": [{"score": "loss", "fraction": 0.9}, {"weights": {"clip_score": 1, "like": 0.5}, "fraction": 0.9}],
            "near_target": {"target": target, "clusters": 30},
        },
        "dedup": {"phash_bits": None, "semantic_eps": 0.05, "clusters": 6},
        "density": {"keep": 0.8},
    }


def test_any_order_and_any_cut_into_slices_gives_the_same_decisions_and_scores(tmp_path: Path) -> None:
    rows = samples(260)
    shuffled = random.Random(0).sample(rows, len(rows))
    found = []
    for name, parts in (
        ("whole", {"web-000000": [rows]}),
        ("cut", {"web-000000": [shuffled[:50], shuffled[50:90]], "web-000001": [shuffled[90:]]}),
    ):
        corpus = corpus_for(tmp_path / name, settings(tmp_path))
        workspace = build(corpus, parts)
        select_samples(corpus, workspace)
        found.append(selection(workspace).drop("part", "slice"))
    assert found[0].equals(found[1])
    reasons = set(found[0]["reason"].drop_nulls())
    own = {"filter:given", "filter:top:loss", "filter:top:clip_score+like", "filter:near_target", "density"}
    assert own <= reasons
    assert {"filter:nan_score", "media:http_404"} <= reasons


def test_rows_that_no_rule_applies_to_pass_and_rows_that_lack_a_score_are_dropped(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, settings(tmp_path))
    rows = samples(200)
    workspace = build(corpus, {"web-000000": [rows]})
    report = select_samples(corpus, workspace)
    table = selection(workspace)
    assert table.filter(pl.col("signature") == "text")["keep"].all()
    by_uid = {row["uid"]: row for row in table.iter_rows(named=True)}
    for number, row in enumerate(rows):
        decided = by_uid[row["uid"]]
        if number % 20 == 2:
            assert decided["reason"] in ("filter:nan_score", "filter:given")
        elif number % 20 == 3:
            assert decided["reason"] in ("filter:top:loss", "filter:given")
            assert decided["score_loss"] is decided["score_like"] is None
        elif number % 20 > 4:
            assert decided["score_loss"] < 0 < decided["score_like"] <= 1.001
            assert decided["score_sharpness"] == 100.0
        assert decided["score_given"] == (pytest.approx(number % 10 / 10) if row.get("extra") else None)
    assert list(table.columns)[-4:] == ["score_given", "score_sharpness", "score_loss", "score_like"]
    assert report.counts["kept"] + sum(report.reasons.values()) == report.counts["uids"]
    assert {row["score"] for row in report.tables["scores"]} == {"given", "sharpness", "loss", "like"}
    assert [row["rule"] for row in report.tables["top fractions"]] == ["top:loss", "top:clip_score+like"]
    assert sum(row["before"] - row["after"] for row in report.tables["pruned clusters"]) == report.reasons["density"]
    assert report.numbers["given_threshold"] == 0.15
    publish(workspace, str(report.version))
    story = explain(corpus, workspace, rows[5]["uid"])
    assert story.selection is not None
    assert story.selection["score_loss"] == by_uid[rows[5]["uid"]]["score_loss"]


def test_every_deciding_score_has_a_histogram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Summary, "images", DRAW)
    corpus = corpus_for(tmp_path, settings(tmp_path))
    workspace = build(corpus, {"web-000000": [samples(100)]})
    images = select_samples(corpus, workspace).images
    assert {"score given", "score sharpness", "score loss", "score like"} <= set(images)
    assert all(image.startswith(b"<svg") and len(image) < 20_000 for image in images.values())


def test_a_grown_corpus_keeps_scores_cuts_and_bounds_within_the_tolerances(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    chosen["filter"] |= {"top_fraction_tolerance": 0.2}
    chosen["density"] |= {"tolerance": 0.2}
    corpus = corpus_for(tmp_path, chosen)
    rows = samples(260)
    workspace = build(corpus, {"web-000000": [rows[:240]]})
    publish(workspace, str(select_samples(corpus, workspace).version))
    before = selection(workspace)
    build(corpus, {"web-000000": [rows[:240]], "web-000001": [rows[240:]]})
    select_samples(corpus, workspace)
    after = selection(workspace)
    old = after.join(before.select("uid"), on="uid")
    scores = ["score_given", "score_sharpness", "score_loss", "score_like"]
    assert old.select("uid", *scores).equals(before.select("uid", *scores))
    own = pl.col("reason").str.contains("^(filter:|density)").fill_null(value=False)
    assert old.filter(own).select("uid", "reason").equals(before.filter(own).select("uid", "reason"))


def test_near_target_drops_a_picture_without_a_vector_and_leaves_texts(tmp_path: Path) -> None:
    target = settings(tmp_path)["filter"]["near_target"]["target"]
    rows = [sample(0, kind="text", url=None), sample(1, embedding=None), sample(2, embedding=PICTURES[0])]
    corpus = corpus_for(tmp_path, {"filter": {"near_target": {"target": target}}})
    workspace = build(corpus, {"web-000000": [rows]})
    select_samples(corpus, workspace)
    reasons = dict(selection(workspace).select("signature", "reason").iter_rows())
    assert reasons["text"] is None
    found = selection(workspace).filter(pl.col("signature") == "image+text")["reason"].to_list()
    assert sorted(found, key=str) == [None, "filter:near_target"]


def test_a_missing_target_is_named_before_anything_is_decided(tmp_path: Path) -> None:
    target = {"table": str(tmp_path / "nowhere.parquet")}
    corpus = corpus_for(tmp_path, {"filter": {"near_target": {"target": target}}})
    workspace = build(corpus, {"web-000000": [[sample(0, embedding=unit_vectors(1)[0])]]})
    with pytest.raises(UserError, match=r"nowhere\.parquet: no such file or folder, but section select reads it"):
        select_samples(corpus, workspace)


def test_changed_weights_of_scores_make_another_release_and_unused_scores_do_not(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    workspace = build(corpus_for(tmp_path, chosen), {"web-000000": [samples(60)]})

    def version(**changes: Any) -> str:
        return str(select_samples(corpus_for(tmp_path, {**chosen, **changes}), workspace).version)

    first = version()
    scores = dict(chosen["scores"])
    assert version(scores=scores | {"extra": {"kind": "vas"}}) == first
    assert version(scores=scores | {"loss": scores["loss"] | {"temperature": 0.2}}) != first
    table = UPath(chosen["filter"]["near_target"]["target"]["table"])
    write_table(table, pa.table({"embedding": pa.array(list(PICTURES[:3]), pa.list_(pa.float16()))}))
    assert version() != first
