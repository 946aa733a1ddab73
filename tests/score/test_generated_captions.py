"""Generated captions: which samples get one, what the table says of it, and what is not done twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmdata.config import Score
from mmdata.engine import stage_fingerprints
from mmdata.samples import FEATURES
from mmdata.score.generated_captions import NAMES, captioner_mark
from mmdata.score.scorer import ClipScorer, load_scorer
from mmdata.score.stage import score_part
from mmdata.score.text_refill import TEXT_KEY
from mmdata.storage.tables import write_table
from tests.support import captioning
from tests.support.scoring import (
    PART,
    PartMaker,
    Sample,
    clip_sample,
    count_embedded,
    encode,
    photo,
    photo_samples,
    save_model,
)

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")

CAPTIONER = "tests.support.captioning:by_hash"


@pytest.fixture(autouse=True)
def _nothing_asked_yet() -> None:
    captioning.asked.clear()


def caption(maker: PartMaker, **settings: Any) -> list[dict[str, Any]]:
    """Run the features stage with a captioner; the rows of its table."""
    section = {"model": "one", "captioner": CAPTIONER, **settings}
    corpus = maker.corpus.model_copy(update={"recaption": maker.corpus.recaption.model_validate(section)})
    score_part(corpus, maker.workspace, PART)
    return maker.table().to_pylist()


def was_asked(row: dict[str, Any]) -> bool:
    return row["generated_caption"] is not None or row["generated_problem"] is not None


def answers_of(rows: list[dict[str, Any]]) -> dict[str, tuple[str | None, str | None]]:
    return {row["uid"]: (row["generated_caption"], row["generated_problem"]) for row in rows}


def test_every_picture_gets_a_caption_or_a_reason_and_its_own_stays(maker: PartMaker, scorer: ClipScorer) -> None:
    samples = [
        *photo_samples(24),
        Sample("broken", b"no picture"),
        Sample("text", kind="text"),
        Sample("never fetched"),
    ]
    maker.write([samples])
    score_part(maker.corpus, maker.workspace, PART)
    before = maker.table()
    rows = caption(maker)
    assert maker.table().select(FEATURES.names).equals(before.select(FEATURES.names))
    pictures = {sample.uid(n): sample for n, sample in enumerate(samples[:24])}
    problems = [row["generated_problem"] for row in rows if row["uid"] in pictures]
    assert problems.count("too_long") and problems.count("empty") and problems.count(None) > 12
    for row in rows:
        made = row["generated_caption"]
        assert (made is not None) == (row["uid"] in pictures and row["generated_problem"] is None)
        if made is None:
            assert all(row[name] is None for name in NAMES if name != "generated_problem")
            continue
        assert "\n" not in made and row["generated_n_words"] == len(made.split())
        image = np.array(row["embedding"], np.float32)
        texts = scorer.embed_texts([made, pictures[row["uid"]].caption or ""])
        assert row["generated_score"] == pytest.approx(float(image @ texts[0] / np.linalg.norm(image)), abs=1e-5)
        assert row["caption_agreement"] == pytest.approx(float(texts[0] @ texts[1]), abs=1e-5)
        assert row["generated_lang"] is not None
    stamp = maker.workspace.part_stamp(PART, "features")
    assert stamp.counts["generated_captions"] == problems.count(None) and stamp.counts["captions_made"] == 24
    assert stamp.reasons["recaption:too_long"] == problems.count("too_long") and stamp.accepted
    mark = captioner_mark(maker.table().schema.metadata)
    assert mark is not None and (mark.name, mark.prompt, mark.max_tokens) == ("one", None, 64)


def test_switching_captions_on_scores_nothing_again_and_off_removes_them(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.write([photo_samples(6)])
    score_part(maker.corpus, maker.workspace, PART)
    before = maker.table()
    embedded = count_embedded(monkeypatch)
    caption(maker)
    assert embedded["images"] == 0 and len(captioning.asked) == 6
    score_part(maker.corpus, maker.workspace, PART)
    assert maker.table().equals(before, check_metadata=True) and embedded["images"] == 0


def test_captions_are_kept_while_picture_caption_model_and_prompt_stay(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = photo_samples(8)
    maker.write([samples])
    first = caption(maker)
    assert len(captioning.asked) == 8
    maker.write([[*samples, *photo_samples(1, first=8)]])
    caption(maker)
    assert len(captioning.asked) == 9
    maker.write([[Sample(samples[0].caption, encode(photo(99)), samples[0].url), *samples[1:]]])
    changed = caption(maker)
    assert len(captioning.asked) == 10
    assert answers_of(changed[1:]).items() >= answers_of([r for r in first if r in changed[1:]]).items()
    for number, settings in enumerate(({"prompt": "and now?"}, {"max_tokens": 9}, {"model": "two"}), 1):
        caption(maker, **settings)
        assert len(captioning.asked) == 10 + 8 * number, settings


def test_another_scorer_measures_the_captions_anew_and_makes_none(maker: PartMaker, tmp_path: Path) -> None:
    maker.write([photo_samples(6)])
    first = caption(maker)
    other = Score(model=f"local-dir:{save_model(tmp_path / 'other', seed=5)}", device="cpu", batch_size=8)
    maker.corpus = maker.corpus.model_copy(update={"score": other})
    second = caption(maker)
    assert answers_of(first) == answers_of(second) and len(captioning.asked) == 6
    scorer = load_scorer(other)
    for row, old in zip(second, first, strict=True):
        if row["generated_caption"] is not None:
            image = np.array(row["embedding"], np.float32)
            cosine = image @ scorer.embed_texts([row["generated_caption"]])[0] / np.linalg.norm(image)
            assert row["generated_score"] == pytest.approx(float(cosine), abs=1e-5) != old["generated_score"]


def test_a_prompt_with_a_caption_in_it_rewrites_and_leaves_out_who_has_none(maker: PartMaker) -> None:
    maker.write([[*photo_samples(3), Sample(None, encode(photo(50))), Sample("{caption}", encode(photo(51)))]])
    rows = caption(maker, prompt="Say it better: {caption}")
    prompts = sorted(prompt or "" for _, prompt in captioning.asked)
    captions = [*(f"a photograph of thing {number}" for number in range(3)), "{caption}"]
    assert prompts == [f"Say it better: {caption}" for caption in captions]
    assert sum(was_asked(row) for row in rows) == 4


def test_only_weak_or_missing_captions_are_replaced_where_that_is_asked_for(maker: PartMaker) -> None:
    maker.write([[*photo_samples(9), Sample(None, encode(photo(50)))]])
    score_part(maker.corpus, maker.workspace, PART)
    scores = {row["uid"]: row["clip_score"] for row in maker.table().to_pylist()}
    middle = float(np.median([score for score in scores.values() if score is not None]))
    uncaptioned = {uid for uid, score in scores.items() if score is None}
    weak = {uid for uid, score in scores.items() if score is not None and score <= np.float32(middle)}
    for bound, expected in ((middle, uncaptioned | weak), (-1, uncaptioned)):
        assert {row["uid"] for row in caption(maker, max_clip_score=bound) if was_asked(row)} == expected


def test_a_share_is_drawn_by_uid_whatever_the_slices_and_their_order(maker: PartMaker) -> None:
    samples = photo_samples(40)
    maker.write([samples])
    whole = answers_of(caption(maker, share=0.5))
    chosen = {uid for uid, answer in whole.items() if answer != (None, None)}
    assert 10 <= len(chosen) <= 30
    maker.write([samples[30:], samples[:30][::-1]])
    caption(maker, share=0.5)
    parts = [answers_of(maker.table(slice_name=name).to_pylist()) for name in ("0000", "0001")]
    assert parts[0] | parts[1] == whole
    more = answers_of(caption(maker, share=0.8))
    assert all(more[uid] == whole[uid] for uid in chosen & more.keys())


def test_of_a_clip_the_model_sees_the_middle_frame(maker: PartMaker) -> None:
    frames = [encode(photo(n)) for n in range(5)]
    maker.write([[clip_sample("a clip", frames), *photo_samples(1, first=30)]])
    caption(maker)
    assert [data for data, _ in captioning.asked] == [encode(photo(30))]
    caption(maker, kinds=["image", "video"])
    assert captioning.asked[-1][0] == frames[2]


def test_what_decides_the_captions_is_named_and_the_rest_is_not(maker: PartMaker) -> None:
    part = maker.workspace.part(maker.write([photo_samples(1)]))

    def settings(**section: Any) -> str:
        corpus = maker.corpus.model_copy(update={"recaption": maker.corpus.recaption.model_validate(section)})
        return stage_fingerprints.stage_settings(corpus, part, "features")

    plain = settings(model="one")
    assert settings() != plain
    same: list[dict[str, Any]] = [{"device": "cpu"}, {"batch_size": 3}, {"use": "replace_where_better"}, {"margin": 1}]
    assert {settings(model="one", **change) for change in same} == {plain}
    changes: list[dict[str, Any]] = [{"prompt": "x"}, {"max_tokens": 3}, {"kinds": ["video"]}]
    changes += [{"share": 0.5}, {"max_clip_score": 0.2}]
    assert len({settings(model="one", **change) for change in changes} | {plain}) == 6


def test_a_local_model_counts_by_its_files_and_not_by_its_folder(tmp_path: Path, maker: PartMaker) -> None:
    part = maker.workspace.part(maker.write([photo_samples(1)]))
    for name in ("here", "there"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")

    def settings(name: str) -> str:
        section = {"model": str(tmp_path / name / "model")}
        corpus = maker.corpus.model_copy(update={"recaption": maker.corpus.recaption.model_validate(section)})
        return stage_fingerprints.stage_settings(corpus, part, "features")

    for name in ("here", "there"):
        os.utime(tmp_path / name / "model" / "config.json", (1000, 1000))
    assert settings("here") == settings("there")
    (tmp_path / "here" / "model" / "config.json").write_text("{} ")
    assert settings("here") != settings("there")


def test_another_detector_of_languages_measures_the_captions_anew_and_makes_none(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.write([photo_samples(4)])
    caption(maker)
    table = maker.table()
    place = table.column_names.index("generated_lang")
    other = table.set_column(place, table.schema.field(place), pa.array(["xx"] * 4))
    metadata = {**table.schema.metadata, TEXT_KEY.encode(): b"0"}
    write_table(maker.workspace.table(PART, "features", "0000"), other.replace_schema_metadata(metadata))
    maker.workspace.clear_slice_stamp(PART, "features", "0000")
    embedded = count_embedded(monkeypatch)
    caption(maker)
    assert len(captioning.asked) == 4 and embedded["images"] == 0
    assert maker.table().equals(table)
