"""The selection as a whole, over real tables and stamps."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mmdata.engine.part_run import table_digest
from mmdata.errors import DataError, UserError
from mmdata.releases.draft import read_draft
from mmdata.samples import SELECTION
from mmdata.select import stage
from mmdata.select.selection_summary import Summary
from mmdata.select.stage import select_samples
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace
from tests.support.selecting import build, corpus_for, points, publish, sample, selection

FULL = {
    "filter": {"top_fraction": 0.8, "languages": ["en"]},
    "dedup": {"phash_bits": 4, "semantic_eps": 0.05},
    "balance": {"max_ratio": 1.2},
    "oversample": {"threshold": 0.05, "max_repeats": 3},
}
DRAW = Summary.images
DECIDED = [name for name in SELECTION.names if name not in {"part", "slice"}]


@pytest.fixture(autouse=True)
def _nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of the time; a test that looks at them puts `DRAW` back."""
    monkeypatch.setattr(Summary, "images", lambda summary, scorer: {})


def crowd(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Samples of which some share URL, bytes, hash or meaning, some are bad, and scores tie."""
    rng = np.random.default_rng(seed)
    vectors = points(count, seed=seed, spread=0.1)
    found = []
    for number in range(count):
        like = int(rng.integers(0, count))
        given_: dict[str, Any] = {"embedding": vectors[number], "clip_score": round(float(rng.uniform(0.1, 0.4)), 2)}
        dice = rng.random()
        if dice < 0.05:
            given_ |= {"status": "failed_to_download", "error": "http_404", "clip_score": None, "embedding": None}
        elif dice < 0.08:
            given_ |= {"problem": "no_url", "status": "refused", "error": "bad_row", "embedding": None}
        elif dice < 0.11:
            given_ |= {"features_problem": "undecodable", "clip_score": None, "embedding": None}
        elif dice < 0.14:
            given_ |= {"clip_score": math.nan}
        elif dice < 0.24:
            given_ |= {"url": f"http://host.test/{like}.jpg", "caption": f"another name of {like}"}
        elif dice < 0.30:
            given_ |= {"sha256": sample(like)["sha256"]}
        elif dice < 0.38:
            given_ |= {"phash": sample(like)["phash"] ^ (1 << int(rng.integers(0, 64)))}
        elif dice < 0.55:
            given_ |= {"caption": None}
        found.append(sample(number, **given_))
    return list({one["uid"]: one for one in found}.values())


def cut(samples: Sequence[dict], parts: int, slices: int) -> dict[str, list[list[dict]]]:
    """Deal samples into parts and slices."""
    dealt: dict[str, list[list[dict]]] = {f"web-{p:06d}": [[] for _ in range(slices)] for p in range(parts)}
    for number, one in enumerate(samples):
        dealt[f"web-{number % parts:06d}"][number // parts % slices].append(one)
    return dealt


BY_MIX = {**FULL, "balance": {"mix": {"image+text": 0.4, "image": 0.6}, "max_loss": 0.4, "tolerance": 0.1}}


@pytest.mark.parametrize(("select", "parts", "slices"), [(FULL, 3, 2), (BY_MIX, 1, 4)])
def test_any_order_and_any_cut_into_parts_gives_the_same_selection(
    tmp_path: Path, select: dict[str, Any], parts: int, slices: int
) -> None:
    samples = crowd(300)
    shuffled = random.Random(parts).sample(samples, len(samples))
    found = []
    for name, dealt in (("whole", cut(samples, 1, 1)), ("cut", cut(shuffled, parts, slices))):
        corpus = corpus_for(tmp_path / name, select, shards={"validation_fraction": 0.1})
        workspace = build(corpus, dealt)
        select_samples(corpus, workspace)
        found.append(selection(workspace).select(DECIDED))
    assert found[0].equals(found[1])


def test_every_row_is_accounted_for_with_one_reason_or_kept(tmp_path: Path) -> None:
    samples = crowd(200)
    repeated = [one | {"copies": 3} for one in samples[:20]]
    corpus = corpus_for(tmp_path, FULL, shards={"validation_fraction": 0.1})
    workspace = build(corpus, {"web-000000": [samples[:100], samples[100:]], "web-000001": [repeated]})
    report = select_samples(corpus, workspace)
    table = selection(workspace)
    assert table["uid"].is_sorted()
    assert table["uid"].n_unique() == len(table) == len(samples)
    assert table["copies"].sum() == report.counts["rows"] == len(samples) + 60
    assert (table["keep"] == table["reason"].is_null()).all()
    assert (table["keep"] == (table["repeats"] > 0)).all()
    assert (table["keep"] == table["split"].is_not_null()).all()
    assert report.counts["kept"] + sum(report.reasons.values()) == report.counts["uids"]
    kinds = {reason.partition(":")[0] for reason in report.reasons}
    assert {"bad_row", "media", "features", "filter", "duplicate", "balance"} == kinds
    assert {"duplicate:url", "duplicate:sha256", "duplicate:phash", "duplicate:semantic"} <= set(report.reasons)


def test_plots_are_drawn_anew_for_a_selection_that_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Summary, "images", DRAW)
    corpus = corpus_for(tmp_path, FULL)
    workspace = build(corpus, {"web-000000": [crowd(60)]})
    first, again = select_samples(corpus, workspace), select_samples(corpus, workspace)
    assert {"scores", "modalities", "long tail"} == set(first.images)
    assert all(image.startswith(b"<svg") and len(image) < 20_000 for image in first.images.values())
    assert again.images == first.images


def test_a_duplicate_names_the_best_scored_that_stays(tmp_path: Path) -> None:
    best = sample(0, clip_score=0.9)
    by_url = sample(1, url=best["url"], clip_score=0.5)
    by_bytes = sample(2, sha256=by_url["sha256"], clip_score=0.95, phash=1)
    by_hash = sample(3, clip_score=0.1, phash=0b111)
    corpus = corpus_for(tmp_path, {"dedup": {"phash_bits": 2, "semantic_eps": None}})
    workspace = build(corpus, {"web-000000": [[best, by_url, by_bytes, by_hash]]})
    select_samples(corpus, workspace)
    told = {row["uid"]: (row["reason"], row["duplicate_of"]) for row in selection(workspace).iter_rows(named=True)}
    assert told[best["uid"]] == ("duplicate:sha256", by_bytes["uid"])
    assert told[by_url["uid"]] == ("duplicate:url", by_bytes["uid"])  # not the URL's best, which went itself
    assert told[by_bytes["uid"]] == (None, None)
    assert told[by_hash["uid"]] == ("duplicate:phash", by_bytes["uid"])


def test_reasons_take_precedence_in_the_order_of_the_stages(tmp_path: Path) -> None:
    bad = {"clip_score": 0.0, "status": "failed_to_download", "error": None, "features_problem": "broken"}
    samples = [
        sample(0, problem="no_url", **bad),
        sample(1, **bad),
        sample(2, clip_score=0.0, features_problem="broken"),
        sample(3, clip_score=0.0),
    ]
    corpus = corpus_for(tmp_path, {"filter": {"min_clip_score": 0.2}})
    workspace = build(corpus, {"web-000000": [samples]})
    select_samples(corpus, workspace)
    told = dict(selection(workspace).select("uid", "reason").iter_rows())
    wanted = ["bad_row:no_url", "media:failed_to_download", "features:broken", "filter:clip_score"]
    assert [told[one["uid"]] for one in samples] == wanted


def test_a_uid_in_two_parts_is_one_row_of_the_first_that_can_be_used(tmp_path: Path) -> None:
    one, other = sample(0), sample(1)
    failed = other | {"status": "failed_to_download", "error": "timeout", "clip_score": None}
    corpus = corpus_for(tmp_path)
    workspace = build(corpus, {"web-000000": [[one, failed]], "web-000001": [[one, other]]})
    select_samples(corpus, workspace)
    told = {row["uid"]: row for row in selection(workspace).iter_rows(named=True)}
    assert (told[one["uid"]]["part"], told[one["uid"]]["copies"]) == ("web-000000", 2)
    assert (told[other["uid"]]["part"], told[other["uid"]]["keep"]) == ("web-000001", True)


@pytest.mark.parametrize("samples", [[], [sample(0)], [sample(0, embedding=[1, 0], clip_score=math.nan)]])
def test_an_empty_and_a_one_row_part_are_selected(tmp_path: Path, samples: list[dict]) -> None:
    corpus = corpus_for(tmp_path, FULL, shards={"validation_fraction": 0.5})
    workspace = build(corpus, {"web-000000": [samples]})
    assert select_samples(corpus, workspace).counts["uids"] == len(samples)
    assert selection(workspace).to_arrow().num_rows == len(samples)


def test_the_table_has_the_schema_of_the_contract(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, FULL)
    workspace = build(corpus, {"web-000000": [crowd(30)]})
    select_samples(corpus, workspace)
    path = workspace.release_dir(read_draft(workspace).release_id) / "selection.parquet"
    assert pa.parquet.read_schema(path.path).equals(SELECTION)


# -- releases, one after another ---------------------------------------------------------------------------------


def files(workspace: Workspace, release_id: str) -> dict[str, tuple[int, bytes]]:
    folder = Path(workspace.release_dir(release_id).path)
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_nothing_new_keeps_the_id_and_rewrites_nothing(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, FULL)
    workspace = build(corpus, {"web-000000": [crowd(60)]})
    first = select_samples(corpus, workspace)
    release_id = read_draft(workspace).release_id
    before = files(workspace, release_id)
    drafted = workspace.draft_path.stat().st_mtime
    again = select_samples(corpus, workspace)
    publish(workspace, release_id)
    published = select_samples(corpus, workspace)
    assert read_draft(workspace).release_id == release_id
    assert workspace.draft_path.stat().st_mtime == drafted
    assert {name: kept for name, kept in files(workspace, release_id).items() if name in before} == before
    assert first.counts == again.counts == published.counts
    assert (first.slices_done, again.slices_done, published.slices_done) == (1, 0, 0)


def test_other_settings_make_another_release_and_going_back_names_the_old_one(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, FULL)
    workspace = build(corpus, {"web-000000": [crowd(60)]})
    select_samples(corpus, workspace)
    first = read_draft(workspace)
    publish(workspace, first.release_id)
    before = files(workspace, first.release_id)
    select_samples(corpus_for(tmp_path, FULL | {"filter": {"min_clip_score": 0.3}}), workspace)
    assert read_draft(workspace).release_id != first.release_id
    assert read_draft(workspace).parent == first.release_id
    select_samples(corpus, workspace)
    assert read_draft(workspace) == first
    assert files(workspace, first.release_id) == before


def test_the_same_tables_in_another_workspace_give_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        corpus = corpus_for(tmp_path / name, FULL)
        workspace = build(corpus, cut(crowd(120), 2, 2))
        select_samples(corpus, workspace)
        release_id = read_draft(workspace).release_id
        found.append({key: content for key, (_, content) in files(workspace, release_id).items()})
    assert found[0].keys() == {"selection.parquet", "rates.json", "clusters.npz"}
    assert found[0] == found[1]


def test_a_next_release_keeps_clusters_rates_splits_and_earlier_draws(tmp_path: Path) -> None:
    select = FULL | {"filter": {}, "dedup": {"phash_bits": None, "semantic_eps": None}}
    corpus = corpus_for(tmp_path, select, shards={"validation_fraction": 0.2})
    old = crowd(400, seed=1)
    workspace = build(corpus, {"web-000000": [old]})
    select_samples(corpus, workspace)
    before, first = selection(workspace), read_draft(workspace).release_id
    publish(workspace, first)
    more = [sample(10_000 + number, embedding=vector) for number, vector in enumerate(points(12, seed=1, spread=0.1))]
    build(corpus, {"web-000001": [more]})
    select_samples(corpus, workspace)
    assert read_draft(workspace).parent == first
    second = read_draft(workspace).release_id
    assert files(workspace, first)["clusters.npz"][1] == files(workspace, second)["clusters.npz"][1]
    after = selection(workspace).filter(pl.col("uid").is_in(before["uid"].to_list()))
    same = ["uid", "keep", "reason", "cluster", "concept", "rate", "split"]
    assert after.select(same).equals(before.select(same))
    assert (after["repeats"] == before["repeats"]).mean() > 0.95


def test_a_mix_stays_within_its_tolerance_while_the_corpus_grows_and_then_follows(tmp_path: Path) -> None:
    plain = {"dedup": {"phash_bits": None, "semantic_eps": None}}
    mix = {"balance": {"mix": {"image+text": 0.5, "text": 0.5}, "max_loss": 1.0}}
    corpus = corpus_for(tmp_path, {**plain, **mix})
    workspace = build(corpus, {"web-000000": [[sample(n, kind="text" if n < 20 else "image") for n in range(220)]]})
    select_samples(corpus, workspace)
    publish(workspace, read_draft(workspace).release_id)
    first = selection(workspace).select("uid", "keep", "repeats")
    for part, count, stays in (("web-000001", 6, True), ("web-000002", 400, False)):
        build(corpus, {part: [[sample(int(part[-1]) * 10_000 + n) for n in range(count)]]})
        select_samples(corpus, workspace)
        after = first.select("uid").join(selection(workspace), on="uid", how="left", maintain_order="left")
        assert after.select("uid", "keep", "repeats").equals(first) == stays
    kept = selection(workspace).group_by("signature").agg(pl.col("repeats").sum())
    figures = dict(kept.iter_rows())
    assert (figures["text"], figures["image+text"]) == (80, 80)


def test_clusters_are_trained_anew_when_the_corpus_has_outgrown_them(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    every = [sample(number, embedding=vector) for number, vector in enumerate(points(200))]
    workspace = build(corpus, {"web-000000": [every[:19]]})
    select_samples(corpus, workspace)
    publish(workspace, read_draft(workspace).release_id)
    first = files(workspace, read_draft(workspace).release_id)["clusters.npz"][1]
    build(corpus, {"web-000001": [every[19:]]})
    select_samples(corpus, workspace)
    assert files(workspace, read_draft(workspace).release_id)["clusters.npz"][1] != first


def test_a_killed_selection_leaves_no_draft_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_for(tmp_path, FULL)
    workspace = build(corpus, {"web-000000": [crowd(40)]})
    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_selection", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            select_samples(corpus, workspace)
    assert not workspace.draft_path.exists()
    assert select_samples(corpus, workspace).slices_done == 1
    assert len(selection(workspace)) == 40


def test_a_workspace_on_an_object_store_gives_the_same_selection(tmp_path: Path) -> None:
    found = []
    for root in (str(tmp_path), "memory://selection"):
        corpus = corpus_for(tmp_path, FULL).model_copy(update={"workspace": f"{root}/workspace"})
        workspace = build(corpus, cut(crowd(80), 2, 1))
        report = select_samples(corpus, workspace)
        table = read_table(workspace.release_dir(read_draft(workspace).release_id) / "selection.parquet")
        found.append((report.counts, table_digest(table)))
    assert found[0] == found[1]


# -- concepts -----------------------------------------------------------------------------------------------------


def test_concepts_thin_the_frequent_and_repeat_the_rare(tmp_path: Path) -> None:
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("cat\nokapi\n")
    samples = [sample(n, caption=f"cat {n}") for n in range(400)]
    samples += [sample(1000 + n, caption=f"an okapi and a cat {n}") for n in range(5)]
    samples += [sample(2000, caption="nothing of the kind"), sample(2001, caption=None)]
    balance = {"max_ratio": None, "concepts": str(concepts), "concept_cap": 100}
    corpus = corpus_for(tmp_path, {"balance": balance, "oversample": {"threshold": 0.5, "max_repeats": 3}})
    workspace = build(corpus, {"web-000000": [samples]})
    report = select_samples(corpus, workspace)
    table = selection(workspace)
    cats, okapis = (table.filter(pl.col("concept") == name) for name in ("cat", "okapi"))
    assert cats["rate"].unique().to_list() == [pytest.approx(100 / 405)]
    assert 60 < cats["keep"].sum() < 140
    assert okapis["keep"].all()
    assert (okapis["repeats"] == 3).all()
    assert table.filter(pl.col("signature") == "image")["keep"].all()
    assert report.reasons["balance:concept"] == 400 - cats["keep"].sum() + 1


def test_what_is_said_in_videos_need_not_name_a_concept(tmp_path: Path) -> None:
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("cat\n")
    samples = [sample(n, caption=f"cat {n}") for n in range(100)]
    samples += [sample(1000 + n, kind="video", caption=f"cut the bread {n}") for n in range(20)]
    samples += [sample(2000 + n, kind="text", caption=f"a cat {n}", url=None) for n in range(20)]
    balance = {"max_ratio": None, "concepts": str(concepts), "concept_cap": 50}
    corpus = corpus_for(tmp_path, {"balance": balance, "oversample": {"max_repeats": 1}})
    select_samples(corpus, build(corpus, {"web-000000": [samples]}))
    table = selection(build(corpus, {}))
    assert table.filter(pl.col("signature") != "image+text")["keep"].all()
    cats = table.filter(pl.col("signature") == "image+text")
    assert cats["rate"].unique().to_list() == [pytest.approx(0.5)], "texts are not counted"
    everything = {**balance, "concept_kinds": ["image", "video", "text"]}
    corpus = corpus_for(tmp_path, {"balance": everything, "oversample": {"max_repeats": 1}})
    select_samples(corpus, build(corpus, {}))
    table = selection(build(corpus, {}))
    assert not table.filter(pl.col("signature") == "text+video")["keep"].any()


def test_another_concept_list_is_another_selection(tmp_path: Path) -> None:
    concepts = tmp_path / "concepts.txt"
    corpus = corpus_for(tmp_path, {"balance": {"concepts": str(concepts)}})
    ids = []
    for text in ("picture\n", "picture\nframe\n"):
        concepts.write_text(text)
        workspace = build(corpus, {"web-000000": [[sample(0)]]})
        select_samples(corpus, workspace)
        ids.append(read_draft(workspace).release_id)
    assert ids[0] != ids[1]


def test_concepts_by_embedding_thin_clips_and_pictures_without_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("cat\ndog\nokapi\n")
    vectors = np.eye(4, dtype=np.float16)
    monkeypatch.setattr("mmdata.select.stage.concept_vectors", lambda names, *_: vectors[: len(names)])
    shown = {"cat": vectors[0] + 0.1 * vectors[3], "okapi": vectors[2] + 0.1 * vectors[3]}
    samples = [sample(n, caption=None, embedding=shown["cat"]) for n in range(200)]
    samples += [sample(1000 + n, caption="okapi", embedding=shown["cat"], kind="video") for n in range(200)]
    samples += [sample(2000 + n, caption="a cat", embedding=shown["okapi"]) for n in range(5)]
    samples += [sample(3000 + n, caption="cat", kind="audio", audio_s=5.0) for n in range(9)]
    balance = {"max_ratio": None, "concepts": str(concepts), "concepts_by": "embedding", "concept_cap": 100}
    balance["concept_kinds"] = ["image", "video", "audio"]
    select = {"balance": balance, "dedup": {"phash_bits": None, "semantic_eps": None}}
    corpus = corpus_for(tmp_path, select | {"oversample": {"max_repeats": 1}})
    select_samples(corpus, build(corpus, cut(samples, 2, 2)))
    table = selection(build(corpus, {}))
    cats, okapis = (table.filter(pl.col("concept") == name) for name in ("cat", "okapi"))
    assert set(cats["signature"]) == {"image", "text+video"}
    assert cats["rate"].unique().to_list() == [pytest.approx(100 / 400)]
    assert len(okapis) == 5
    assert okapis["keep"].all()
    sounds = table.filter(pl.col("signature") == "audio+text")
    assert (len(sounds), sounds["keep"].all(), sounds["concept"].null_count()) == (9, True, 9)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_no_releasable_part_is_an_error_that_lists_why(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    with pytest.raises(DataError, match="the catalogue has no parts"):
        select_samples(corpus, Workspace(corpus.workspace))
    workspace = build(corpus, {"web-000000": [[sample(0)]]}, rejected={"web-000000": "2% fetched"})
    with pytest.raises(DataError, match="web-000000: 2% fetched"):
        select_samples(corpus, workspace)


def test_a_refused_part_is_left_out_and_named_in_the_draft(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    parts = {"web-000000": [[sample(0)]], "web-000001": [[sample(1)]]}
    workspace = build(corpus, parts, rejected={"web-000001": "2% fetched"})
    report = select_samples(corpus, workspace)
    assert read_draft(workspace).parts == ("web-000000",)
    assert read_draft(workspace).refused_parts == {"web-000001": "2% fetched"}
    assert report.counts["uids"] == report.counts["parts"] == report.counts["refused_parts"] == 1


def test_scores_of_two_models_are_never_mixed(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    build(corpus, {"web-000000": [[sample(0)]]})
    workspace = build(corpus, {"web-000001": [[sample(1)]]}, scorer={"name": "ViT-L-14", "fingerprint": "1414"})
    with pytest.raises(DataError, match=r"2 different models(.|\n)*ViT-L-14 \(1414\), first in part web-000001"):
        select_samples(corpus, workspace)


def test_features_that_name_no_scorer_are_refused(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    workspace = build(corpus, {"web-000000": [[sample(0)]]}, scorer=None)
    with pytest.raises(DataError, match=r"features.0000\.parquet: names no scorer"):
        select_samples(corpus, workspace)


def test_tables_that_do_not_match_are_named(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    workspace = build(corpus, {"web-000000": [[sample(0), sample(1)], [sample(2)]]})
    other = build(corpus_for(tmp_path / "other"), {"web-000000": [[sample(7)]]})
    table = workspace.table("web-000000", "media", "0001")
    table.write_bytes(other.table("web-000000", "media", "0000").read_bytes())
    with pytest.raises(DataError, match="part web-000000, slice 0001: the media table"):
        select_samples(corpus, workspace)
    table.unlink()
    with pytest.raises(DataError, match=r"media.0001\.parquet"):
        select_samples(corpus, workspace)


def test_embeddings_that_do_not_fit_in_memory_give_the_same_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, limit in (("memory", 10**9), ("disk", 0)):
        monkeypatch.setattr("mmdata.select.embeddings.MEMORY_LIMIT_BYTES", limit)
        corpus = corpus_for(tmp_path / name, FULL)
        workspace = build(corpus, cut(crowd(120), 2, 2))
        select_samples(corpus, workspace)
        found.append(selection(workspace))
    assert found[0].equals(found[1])


def test_growing_several_times_moves_no_sample_to_the_other_split(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, FULL)
    every = [sample(number, embedding=vector) for number, vector in enumerate(points(900))]
    workspace = build(corpus, {"web-000000": [every[:150]]})
    select_samples(corpus, workspace)
    publish(workspace, read_draft(workspace).release_id)
    before = selection(workspace).filter("keep").select("uid", "split")
    build(corpus, {"web-000001": [every[150:]]})
    select_samples(corpus, workspace)
    after = selection(workspace).filter("keep").select("uid", after="split")
    both = before.join(after, on="uid")
    assert both.height > 10
    assert both.filter(pl.col("split") != pl.col("after")).is_empty()


def test_what_stands_in_as_validation_of_a_small_corpus_stays_through_refreshes_and_changed_settings(
    tmp_path: Path,
) -> None:
    """No draw is below the fraction, so one of the smaller clusters is held out. It grows, and is no longer small."""
    dedup = {"clusters": 24, "phash_bits": None, "semantic_eps": None}
    new = [sample(number, embedding=vector) for number, vector in enumerate(points(120, 24, 16))]
    vector_of = {one["uid"]: one["embedding"] for one in new}
    sides: dict[bytes, str] = {}
    for night in range(4):
        select = {"dedup": dedup, "oversample": {"max_repeats": 2 + night}}
        corpus = corpus_for(tmp_path, select, shards={"validation_fraction": 1e-9})
        workspace = build(corpus, {f"web-{night:06d}": [new]})
        select_samples(corpus, workspace)
        publish(workspace, read_draft(workspace).release_id)
        now = dict(selection(workspace).filter("keep").select("uid", "split").iter_rows())
        held_out = [uid for uid in vector_of if now[uid] == "validation"]
        assert 0 < len(held_out) < len(vector_of)
        assert {uid: now[uid] for uid in sides} == sides
        sides = now
        new = [sample(1000 + 50 * night + more, embedding=vector_of[held_out[0]]) for more in range(20)]


def test_a_cut_is_kept_within_the_tolerance_so_that_no_old_sample_moves_over_it(tmp_path: Path) -> None:
    """The new rows are worse than the old ones: the exact share lets old samples in that were out."""
    kept: dict[float, list[dict[bytes, bool]]] = {}
    for tolerance in (0.0, 0.1):
        root = tmp_path / str(tolerance)
        root.mkdir()
        select = {
            "filter": {"top_fraction": 0.5, "top_fraction_tolerance": tolerance},
            "dedup": {"phash_bits": None, "semantic_eps": None},
            "balance": {"max_ratio": None},
        }
        new = [sample(n, clip_score=n / 1000) for n in range(400)]
        nights = []
        for night, factor in enumerate((2, 2, 3)):  # in the third night another setting than the filter's changes
            corpus = corpus_for(root, select | {"oversample": {"max_repeats": factor}})
            workspace = build(corpus, {f"web-{night:06d}": [new]})
            select_samples(corpus, workspace)
            publish(workspace, read_draft(workspace).release_id)
            nights.append(dict(selection(workspace).select("uid", "keep").iter_rows()))
            new = [sample(1000 + 20 * night + n, clip_score=0.0) for n in range(20)]
        kept[tolerance] = nights
    assert kept[0.0][0] == kept[0.1][0]
    exact, sticky = ([sum(night.values()) for night in kept[tolerance]] for tolerance in (0.0, 0.1))
    assert exact == [200, 210, 220]
    assert sticky == [200, 200, 200]
    for night in kept[0.1]:
        assert {uid: night[uid] for uid in kept[0.1][0]} == kept[0.1][0]


def test_a_cut_that_drifts_too_far_or_is_of_another_share_is_drawn_anew(tmp_path: Path) -> None:
    dedup = {"phash_bits": None, "semantic_eps": None}
    new = [sample(n, clip_score=n / 1000) for n in range(400)]
    found = []
    for night, (fraction, more) in enumerate([(0.5, 0), (0.5, 100), (0.25, 0)]):
        select = {"filter": {"top_fraction": fraction, "top_fraction_tolerance": 0.1}, "dedup": dedup}
        corpus = corpus_for(tmp_path, select)
        new = new if not night else [sample(1000 + n, clip_score=0.0) for n in range(more)]
        workspace = build(corpus, {f"web-{night:06d}": [new]})
        select_samples(corpus, workspace)
        publish(workspace, read_draft(workspace).release_id)
        found.append(selection(workspace)["keep"].sum())
    assert found == [200, 250, 125]


def every_modality(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Pictures, 40 videos of 5 clips each, sound and words: the signatures of a how-to corpus, some rare."""
    vectors = points(500, centres=8, spread=0.15, seed=3)
    found = [sample(number, embedding=vectors[number]) for number in range(200)]
    for video in range(40):
        url = f"https://www.youtube.com/watch?v={video:03d}"
        for number in range(5):
            at = 10.0 * number
            found.append(
                sample(
                    1000 + video * 5 + number,
                    **{"kind": "video", "url": url, "start_s": at, "end_s": at + 10, "duration_s": 10.0},
                    sha256=f"{int(rng.integers(2**62)):016x}{0:048x}",
                    phash=int(rng.integers(2**62)),
                    audio_s=10.0 if video < 2 else None,
                    embedding=vectors[200 + video * 5 + number],
                )
            )
    for number in range(60):
        said = {"caption": None, "transcript": f"what was said {number}"} if number % 2 else {}
        url = f"http://host.test/{number}.wav"
        sound = {"duration_s": 4.0, "audio_s": 4.0, "clip_score": None, "phash": None}
        found.append(sample(2000 + number, kind="audio", url=url, **sound, **said))
    for number in range(90):
        text = {"kind": "text", "url": None, "caption": f"words {number}", "clip_score": None}
        found.append(sample(3000 + number, **text))
    return found


def test_every_signature_goes_through_and_the_rare_ones_are_repeated(tmp_path: Path) -> None:
    select = {
        "dedup": {"phash_bits": 4, "semantic_eps": 0.0001},
        "balance": {"max_ratio": 2.5, "tail_share": 0.05},
        "oversample": {"threshold": 0.2, "max_repeats": 4},
    }
    samples = every_modality(np.random.default_rng(0))
    corpus = corpus_for(tmp_path, select, shards={"validation_fraction": 0.15})
    workspace = build(corpus, {"web-000000": [samples[::2], samples[1::2]]})
    report = select_samples(corpus, workspace)
    table = selection(workspace)
    before = {row["signature"]: row["before"] for row in report.tables["signatures"]}
    after = {row["signature"]: row["after"] for row in report.tables["signatures"]}
    assert before == {"image+text": 200, "text+video": 190, "text": 90, "audio+text": 60, "audio+text+video": 10}
    assert after["image+text"] < 200
    assert after["audio+text+video"] > 15
    assert after["audio+text"] > 60  # sound has no cluster: its signature alone makes it rare
    clips = table.join(
        pl.DataFrame([{"uid": one["uid"], "url": one["url"]} for one in samples if one["kind"] == "video"]), on="uid"
    )
    sides = clips.filter("keep").group_by("url").agg(pl.col("split").n_unique(), pl.col("split").first().alias("side"))
    assert (sides["split"] == 1).all()
    assert set(sides["side"]) == {"train", "validation"}
    assert set(table.filter(pl.col("signature") == "image+text", "keep")["split"]) == {"train", "validation"}


def test_a_selection_decides_as_version_0_1_0_did(tmp_path: Path) -> None:
    select = {
        "filter": {"top_fraction": 0.8, "min_words": 2},
        "dedup": {"phash_bits": 4},
        "balance": {"max_ratio": 2.5, "tail_share": 0.05, "max_per_host": 150},
        "oversample": {"threshold": 0.2, "max_repeats": 4},
    }
    # Without embeddings: the clusters that FAISS trains may differ from one processor to another.
    samples = [given | {"embedding": None} for given in every_modality(np.random.default_rng(0))]
    corpus = corpus_for(tmp_path, select, shards={"validation_fraction": 0.15})
    workspace = build(corpus, {"web-000000": [samples[::2], samples[1::2]]})
    select_samples(corpus, workspace)
    table = selection(workspace)
    assert table.height == 550
    assert sha256(json.dumps(table.to_dicts()).encode()).hexdigest()[:16] == "99d942a3225668fd"


def test_a_semantic_duplicate_is_never_of_another_kind(tmp_path: Path) -> None:
    same = points(1)[0]
    samples = [sample(number, embedding=same, clip_score=0.3) for number in range(2)]
    samples += [sample(10 + n, kind="video", embedding=same, clip_score=0.2, duration_s=1.0) for n in range(2)]
    select = {"dedup": {"phash_bits": None, "semantic_eps": 0.05, "clusters": 1}}
    corpus = corpus_for(tmp_path, select)
    workspace = build(corpus, {"web-000000": [samples]})
    select_samples(corpus, workspace)
    table = selection(workspace)
    for signature in ("image+text", "text+video"):
        assert sorted(table.filter(pl.col("signature") == signature)["keep"]) == [False, True]


def test_a_text_with_one_character_more_is_dropped_for_the_other(tmp_path: Path) -> None:
    said = "stir the onions in a pan with some butter until they are soft"
    captions = [said, said + "!", "serve the onions in a bowl as long as they are hot", "recipe 1", "recipe 2"]
    texts = [sample(n, kind="text", url=None, caption=caption, clip_score=None) for n, caption in enumerate(captions)]
    for similarity, stay in ((0.75, 4), (None, 5)):
        corpus = corpus_for(tmp_path, {"dedup": {"text_similarity": similarity}})
        workspace = build(corpus, {"txt-000000": [texts[::2], texts[1::2]]})
        select_samples(corpus, workspace)
        table = selection(workspace)
        assert table["keep"].sum() == stay
    select_samples(corpus_for(tmp_path, {}), workspace)
    (row,) = selection(workspace).filter(~pl.col("keep")).to_dicts()
    assert row["reason"] == "duplicate:text"
    assert {row["uid"], row["duplicate_of"]} == {texts[0]["uid"], texts[1]["uid"]}


def test_clips_of_one_video_with_near_embeddings_and_other_words_all_stay(tmp_path: Path) -> None:
    same = points(1)[0]
    words = [f"step {number}" for number in range(8)] * 2
    clips = [
        sample(
            n,
            kind="video",
            url="https://host.test/film",
            caption=caption,
            start_s=10.0 * n,
            end_s=10.0 * n + 10,
            sha256=None,
            embedding=same,
            duration_s=10.0,
        )
        for n, caption in enumerate(words)
    ]
    corpus = corpus_for(tmp_path, {"dedup": {"phash_bits": None, "semantic_eps": 0.05, "clusters": 1}})
    workspace = build(corpus, {"web-000000": [clips]})
    select_samples(corpus, workspace)
    table = selection(workspace)
    captions = {clip["uid"]: clip["caption"] for clip in clips}
    assert sorted(captions[uid] for uid in table.filter("keep")["uid"]) == words[:8]
    assert set(table["reason"].drop_nulls()) == {"duplicate:semantic"}


def test_a_network_that_did_not_beat_the_scorer_may_not_decide(tmp_path: Path) -> None:
    folder = tmp_path / "dfn"
    folder.mkdir()
    (folder / "network.json").write_text('{"beats_scorer": false}')
    score = {"model": "demo", "networks": {"dfn": {"model": str(folder)}}}
    corpus = corpus_for(tmp_path, {"filter": {"min_scores": {"dfn": 0.2}}}, score=score)
    workspace = build(corpus, {"web-000000": [[sample(0)]]})
    with pytest.raises(UserError, match=r"network\.json: score\.networks\.dfn did not beat the scorer"):
        select_samples(corpus, workspace)
