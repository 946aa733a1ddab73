"""The features stage: what it writes for rows of every kind, what it runs again, and what it refuses."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mmdata.config import Engine, Score
from mmdata.engine import stage_fingerprints
from mmdata.errors import DataError, PartFailed, UserError
from mmdata.fingerprint import fingerprint
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.samples import FEATURES
from mmdata.score import stage
from mmdata.score.scorer import ClipScorer, pair_scores
from mmdata.score.stage import score_part
from tests.support.scoring import PART, PartMaker, Sample, encode, photo, photo_samples, save_model, score_samples

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


def test_scores_are_the_cosines_of_picture_and_caption(maker: PartMaker, scorer: ClipScorer) -> None:
    samples = photo_samples(11)
    maker.write([samples])
    report = score_part(maker.corpus, maker.workspace, PART)
    features = maker.features()
    pixels = np.empty((11, 64, 64, 3), np.uint8)
    from mmdata.score.decode import decode_picture

    looks = [decode_picture(s.data, scorer.preprocess, pixels[n]) for n, s in enumerate(samples)]
    images, texts = scorer.embed_images(pixels), scorer.embed_texts([s.caption for s in samples])
    for n, (sample, wanted) in enumerate(zip(samples, pair_scores(images, texts), strict=True)):
        row = features[sample.uid(n)]
        assert row["clip_score"] == pytest.approx(wanted, abs=1e-5)
        np.testing.assert_allclose(np.array(row["embedding"], np.float32), images[n], atol=1e-3)
        assert row["phash"] == looks[n].phash and row["sharpness"] == pytest.approx(looks[n].sharpness)
        assert (row["n_words"], row["n_chars"], row["problem"]) == (5, len(sample.caption), None)
    assert report.counts["scored"] == report.counts["rows"] == 11


def test_the_table_has_the_schema_the_order_and_the_scorers_name(maker: PartMaker, scorer: ClipScorer) -> None:
    maker.write([photo_samples(5)])
    score_part(maker.corpus, maker.workspace, PART)
    table = maker.table()
    assert table.schema.remove_metadata() == FEATURES
    uids = table["uid"].to_pylist()
    assert uids == sorted(uids) and len(uids) == 5
    assert json.loads(table.schema.metadata[b"scorer"]) == {"name": scorer.name, "fingerprint": scorer.fingerprint}


def test_rows_of_every_fate_keep_a_row(maker: PartMaker) -> None:
    samples = [
        *photo_samples(2),
        Sample("fetched but broken", b"not a picture"),
        Sample("cut short", encode(photo(3))[:2000]),
        Sample("never fetched"),
        Sample("bad row", problem="no_url"),
        Sample(None, encode(photo(4))),
        Sample("   ", encode(photo(5))),
        Sample("lost its place", encode(photo(6)), media={"offset": None, "length": None}),
        Sample("points beyond the tar", encode(photo(7)), media={"offset": 10**9}),
        Sample("a clip", encode(photo(8)), kind="video"),
        Sample("stored, then refused", encode(photo(9)), status="refused"),
        Sample("x\x00y\nz", encode(photo(10))),
    ]
    maker.write([samples])
    report = score_part(maker.corpus, maker.workspace, PART)
    features = maker.features()
    rows = [features[s.uid(n)] for n, s in enumerate(samples)]
    problems = [row["problem"] for row in rows]
    assert problems == [
        None,
        None,
        "undecodable",
        "undecodable",
        *[None] * 4,
        "missing_bytes",
        "missing_bytes",
        *[None] * 3,
    ]
    scored = [row["clip_score"] is not None for row in rows]
    assert scored == [True, True, *[False] * 8, True, False, True]
    embedded = [row["embedding"] is not None for row in rows]
    assert embedded == [True, True, False, False, False, False, True, True, False, False, True, False, True]
    assert rows[4]["n_words"] == 2 and rows[4]["lang"] is not None  # text is measured without a picture
    assert all(value is None for key, value in rows[5].items() if key != "uid")  # a bad row is empty
    assert report.reasons == {"undecodable": 2, "missing_bytes": 2}
    assert report.counts["with_media"] + report.counts["without_media"] == report.counts["rows"] == 13
    assert maker.workspace.part_stamp(PART, "features").accepted


def test_slices_without_media_and_without_rows_are_written(maker: PartMaker) -> None:
    maker.write([[Sample("one"), Sample("two")], [], photo_samples(2)])
    report = score_part(maker.corpus, maker.workspace, PART)
    assert [maker.table(slice_name=f"000{n}").num_rows for n in range(3)] == [2, 0, 2]
    counted = {"rows": 4, "with_media": 2, "without_media": 2, "pictures": 2, "reused": 0, "embedded": 2, "scored": 2}
    assert report.counts == counted | {"with_sound": 0, "text_embedded": 2, "text_filled": 0}
    stamp = maker.workspace.part_stamp(PART, "features")
    assert stamp.accepted and stamp.rows == 4


@pytest.mark.parametrize("slices", [[], [[]], [[Sample("only text")]]])
def test_a_part_with_nothing_to_score_is_accepted_and_reported(maker: PartMaker, slices: list) -> None:
    maker.write(slices)
    report = score_part(maker.corpus, maker.workspace, PART)
    assert maker.workspace.part_stamp(PART, "features").accepted
    assert report.numbers["images_per_s"] == 0 and "score_mean" not in report.numbers
    assert report.tables["samples"] == []


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (256, 0)])
def test_batch_size_and_threads_do_not_change_results(
    maker: PartMaker, tmp_path: Path, tiny: Score, batch_size: int, threads: int
) -> None:
    samples = [*photo_samples(13), Sample("bad", b"bad"), Sample("none")]
    maker.write([samples])
    score_part(maker.corpus, maker.workspace, PART)
    other = PartMaker(tmp_path / "other", tiny.model_copy(update={"batch_size": batch_size, "threads": threads}))
    other.write([samples])
    score_part(other.corpus, other.workspace, PART)
    a, b = (pl.DataFrame(m.table()) for m in (maker, other))
    same = [name for name in a.columns if name not in ("clip_score", "embedding", "text_embedding")]
    assert a.select(same).equals(b.select(same))
    np.testing.assert_allclose(
        a["clip_score"].fill_null(9).to_numpy(), b["clip_score"].fill_null(9).to_numpy(), atol=1e-5
    )


def test_two_runs_give_the_same_bytes(maker: PartMaker, tmp_path: Path, tiny: Score) -> None:
    other = PartMaker(tmp_path / "other", tiny)
    stamps = []
    for part_maker in (maker, other):
        part_maker.write([[*photo_samples(9), Sample("bad", b"bad")]])
        score_part(part_maker.corpus, part_maker.workspace, PART)
        stamps.append(part_maker.workspace.slice_stamp(PART, "features", "0000"))
    assert stamps[0].digest == stamps[1].digest


def test_work_that_crossed_to_another_process_gives_what_it_gives_here(
    maker: PartMaker, tmp_path: Path, tiny: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = [photo_samples(3), photo_samples(3, 10), [Sample("none")]]
    maker.write(slices)
    score_part(maker.corpus, maker.workspace, PART)
    other = PartMaker(tmp_path / "other", tiny, engine={"workers": 2})
    other.write(slices)
    run_part_stage, threads = stage.run_part_stage, torch.get_num_threads()

    def crossed(*args: object, work: object, engine: Engine, **rest: object) -> object:
        assert engine.workers == 2
        return run_part_stage(*args, work=pickle.loads(pickle.dumps(work)), engine=Engine(workers=1), **rest)

    monkeypatch.setattr(stage, "run_part_stage", crossed)
    seen: list[tuple[int, int]] = []
    try:
        score_part(other.corpus, other.workspace, PART, lambda stage, done, total: seen.append((done, total)))
    finally:
        torch.set_num_threads(threads)
    for n in range(3):
        a, b = (pl.DataFrame(m.table(slice_name=f"000{n}")) for m in (maker, other))
        same = [name for name in a.columns if name not in ("clip_score", "embedding", "text_embedding")]
        assert a.select(same).equals(b.select(same))
        scores = [table["clip_score"].fill_null(9).to_numpy() for table in (a, b)]
        np.testing.assert_allclose(*scores, atol=1e-5)
    assert seen == [(7, 7)]


def test_a_second_run_reuses_every_slice_and_loads_no_model(maker: PartMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.write([photo_samples(2), photo_samples(2, 5)])
    first = score_part(maker.corpus, maker.workspace, PART)
    monkeypatch.setattr(stage, "load_scorer", fail)
    monkeypatch.setattr(stage, "is_local_checkpoint", lambda score: False)  # whose weights may change in place
    second = score_part(maker.corpus, maker.workspace, PART)
    assert (first.slices_done, first.slices_reused) == (2, 0)
    assert (second.slices_done, second.slices_reused) == (0, 2)
    assert second.counts == first.counts and second.numbers == first.numbers


def fail(*_: object) -> None:
    raise AssertionError("called")


def test_only_the_slice_whose_media_changed_is_scored_again(maker: PartMaker) -> None:
    maker.write([photo_samples(2), photo_samples(2, 5)])
    score_part(maker.corpus, maker.workspace, PART)
    maker.write(
        [
            photo_samples(2),
            [*photo_samples(1, 5), Sample("a photograph of thing 6", encode(photo(77)), url="https://e.org/6.jpg")],
        ]
    )
    report = score_part(maker.corpus, maker.workspace, PART)
    assert (report.slices_done, report.slices_reused) == (1, 1)


def test_a_checkpoint_that_changed_in_place_is_noticed(maker: PartMaker, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "mine", seed=3)
    corpus = maker.corpus.model_copy(update={"score": Score(model=f"local-dir:{folder}", device="cpu")})
    maker.write([photo_samples(2), photo_samples(2, 5)])
    score_part(corpus, maker.workspace, PART)
    assert score_part(corpus, maker.workspace, PART).slices_reused == 2
    save_model(folder, seed=4)
    report = score_part(corpus, maker.workspace, PART)
    assert (report.slices_done, report.counts["reused"]) == (2, 0)


def test_the_plan_calls_a_finished_part_up_to_date(maker: PartMaker) -> None:
    maker.write([photo_samples(2)])
    score_part(maker.corpus, maker.workspace, PART)
    assert "features" not in fresh_stages(maker, maker.corpus)
    other = maker.corpus.model_copy(update={"score": Score(model="demo")})
    assert "features" in fresh_stages(maker, other)


def fresh_stages(maker: PartMaker, corpus) -> set[str]:  # type: ignore[no-untyped-def]
    part = maker.workspace.part(PART)
    stamps = {stage: maker.workspace.part_stamp(PART, stage) for stage in ("rows", "media", "features")}
    upstream = stage_fingerprints.features_input(stamps["rows"].digest, stamps["media"].digest)
    expected = fingerprint(stage_fingerprints.stage_settings(corpus, part, "features"), upstream)
    return set() if stamps["features"].fingerprint == expected else {"features"}


def test_progress_counts_samples_up_to_the_total(maker: PartMaker) -> None:
    maker.write([photo_samples(20), [Sample("none")], photo_samples(10, 30)])
    seen: list[tuple[str, int, int]] = []
    score_part(maker.corpus, maker.workspace, PART, lambda *args: seen.append(args))
    done = [d for _, d, _ in seen]
    assert {(stage, total) for stage, _, total in seen} == {("features", 31)}
    assert done == sorted(done) and len(done) > 4 and done[-1] == 31


def test_scores_that_are_not_numbers_become_a_problem(maker: PartMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = photo_samples(30)
    maker.write([samples])
    poison(monkeypatch, lambda n: n == 3)
    report = score_part(maker.corpus, maker.workspace, PART)
    assert report.reasons == {"nan_score": 1}
    [row] = [row for row in maker.features().values() if row["problem"]]
    assert row["clip_score"] is None and row["embedding"] is None and row["phash"] is not None
    assert maker.workspace.part_stamp(PART, "features").accepted


def poison(monkeypatch: pytest.MonkeyPatch, which: Callable[[int], bool]) -> None:
    embed_images, count = ClipScorer.embed_images, [0]

    def embed(self: ClipScorer, pixels: np.ndarray) -> np.ndarray:
        embeddings = embed_images(self, pixels)
        for row in embeddings:
            if which(count[0]):
                row[0] = np.nan
            count[0] += 1
        return embeddings

    monkeypatch.setattr(ClipScorer, "embed_images", embed)


def test_a_model_that_gives_many_nans_is_not_accepted(maker: PartMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.write([photo_samples(12)])
    poison(monkeypatch, lambda n: n % 4 == 0)
    score_part(maker.corpus, maker.workspace, PART)
    stamp = maker.workspace.part_stamp(PART, "features")
    assert not stamp.accepted and "no finite numbers for 3 of 12" in stamp.reason


def test_a_part_of_which_nothing_could_be_scored_is_not_accepted(maker: PartMaker) -> None:
    maker.write([[Sample(f"broken {n}", b"broken") for n in range(4)]])
    report = score_part(maker.corpus, maker.workspace, PART)
    stamp = maker.workspace.part_stamp(PART, "features")
    assert not stamp.accepted and "none of 4 fetched pictures" in stamp.reason
    assert report.reasons == {"undecodable": 4}


def test_a_missing_tar_fails_its_slice_alone(maker: PartMaker) -> None:
    maker.write([photo_samples(2), photo_samples(2, 5)])
    Path(maker.workspace.media_tar(PART, "0000", None).path).unlink()
    with pytest.raises(PartFailed, match=r"slice 0000: .*0000\.tar"):
        score_part(maker.corpus, maker.workspace, PART)
    assert maker.table(slice_name="0001").num_rows == 2
    assert maker.workspace.part_stamp(PART, "features") is None


def test_media_of_other_rows_fail_the_slice(maker: PartMaker) -> None:
    maker.write([photo_samples(2)])
    from mmdata.storage.tables import read_table, write_table

    path = maker.workspace.table(PART, "media", "0000")
    write_table(path, read_table(path).slice(1))
    with pytest.raises(PartFailed, match="its uids are not those of the slice's rows"):
        score_part(maker.corpus, maker.workspace, PART)


def test_unfinished_media_is_an_error_that_says_what_to_do(maker: PartMaker) -> None:
    maker.write([photo_samples(1)])
    maker.workspace.clear_part_stamp(PART, "media")
    with pytest.raises(DataError, match="media is not finished"):
        score_part(maker.corpus, maker.workspace, PART)


def test_an_unknown_model_is_the_users_error_not_a_failed_part(maker: PartMaker) -> None:
    maker.write([photo_samples(1)])
    for workers in (1, 2):
        wrong = {
            "score": Score(model="ViT-B-33"),
            "engine": maker.corpus.engine.model_copy(update={"workers": workers}),
        }
        with pytest.raises(UserError, match="ViT-B-32"):
            score_part(maker.corpus.model_copy(update=wrong), maker.workspace, PART)


def test_no_heavy_import_before_something_is_scored() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mmdata.score.stage, mmdata.score.scorer, mmdata.score.decode, mmdata.score.text_measures;"
        "heavy = {'torch', 'open_clip', 'cv2', 'matplotlib', 'py3langid', 'eldc'} & set(sys.modules);"
        "sys.exit(','.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_part_of_sound_alone_may_enter_a_release(maker: PartMaker, said: np.ndarray) -> None:
    score_samples(
        maker, [Sample("wash", kind="audio", members={"flac": flac(said)}, media={"audio_s": len(said) / SAMPLE_RATE})]
    )
    stamp = maker.workspace.part_stamp(PART, "features")
    assert stamp is not None
    assert stamp.accepted, stamp.reason
