"""Documents in training: a picture stands in its row before the text that follows it, and no text sees a later one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mmdata.inspect.training_runs import LEFT_OUT, stage_report
from tests.support.document_corpus import LOST, corpus_of_documents, drawn, expected, shown, write
from tests.support.published import Published, Web, pairs, serving
from tests.support.tiny_run import VISION, built_stage, first_batch, settings
from training.config import TrainConfig
from training.data.batch_readers import EmptySplit, Share
from training.data.batch_types import RowBatch
from training.data.row_layout import Layout, cut_document
from training.data.sample_index import open_training_release
from training.data.text_codec import IGNORED, MEDIA_PLACEHOLDER, Encoded, TextCodec, load_tokenizer
from training.run import train
from training.stages.stage_reader import make_reader
from training.step_log import read_log

DOCUMENTS = drawn(3, 24)
CODEC = TextCodec(load_tokenizer("bytes"))
ARCHITECTURES = ["single_tower", "cross_attention"]


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


@pytest.fixture(scope="module")
def built(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Published:
    built = corpus_of_documents(tmp_path_factory.mktemp("documents"), web)
    write(built, DOCUMENTS)
    built.write("pairs", pairs(web, range(10)))
    built.build()
    return built


def config_of(architecture: str = "single_tower", **joint: Any) -> TrainConfig:
    rows = {"steps": 3, "batch_size": 16, "pack_length": 640, "max_text_tokens": 500, **joint}
    encoder = {"kind": "open_clip", "config": {**settings().model.encoder.config, "vision_cfg": VISION}}
    return settings(model={"architecture": architecture, "encoder": encoder}, joint=rows)


def read_back(batch: RowBatch, width: int) -> list[tuple[list[int], list[str]]]:
    """The documents and captions of a batch: numbers of their pictures, and the texts between these."""
    samples = []
    assert batch.picture.data is not None
    keys = [(row, int(segment)) for row, ids in enumerate(batch.segment) for segment in ids.unique() if segment]
    for row, segment in keys:
        columns = (batch.segment[row] == segment).nonzero().flatten().tolist()
        assert columns == list(range(columns[0], columns[-1] + 1))
        assert batch.position_ids[row, columns].tolist() == list(range(len(columns)))
        owners = list(zip(batch.picture.row.tolist(), batch.picture.segment.tolist(), strict=True))
        mine = [at for at, owner in enumerate(owners) if owner == (row, segment)]
        starts = [int(batch.picture.start[at]) for at in mine]
        assert starts == sorted(starts)
        numbers = [shown(batch.picture.data[at].permute(1, 2, 0).numpy().astype(float)) for at in mine]
        texts, at, is_first = [], columns[0], True
        for start in [*starts, columns[-1] + 1]:
            ids = batch.input_ids[row, at:start]
            labels = batch.labels[row, at:start]
            if is_first and len(ids):  # the start token is not learned
                ids, labels, is_first = ids[1:], labels[1:], False
            assert labels.tolist() == ids.tolist()
            texts.append(CODEC.decode([token for token in ids.tolist() if token not in (CODEC.start, CODEC.eos)]))
            assert (batch.labels[row, start : start + width] == IGNORED).all() or start == columns[-1] + 1
            at = start + width
        samples.append((numbers, texts))
    return samples


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_hold_each_picture_before_the_text_that_follows_it(
    built: Published, tmp_path: Path, architecture: str
) -> None:
    config = config_of(architecture)
    stage = built_stage("joint", config)
    batch = first_batch(stage, config, built.root, tmp_path, size=64)
    assert isinstance(batch, RowBatch) and (batch.cut_tokens, batch.bad) == (0, 0)
    width = stage.generative()[0].picture_tokens
    assert (width > 0) == (architecture == "single_tower")
    wanted = {(tuple(numbers), tuple(texts)) for numbers, texts in map(expected, DOCUMENTS)}
    read = [(tuple(numbers), tuple(texts)) for numbers, texts in read_back(batch, width)]
    documents = [sample for sample in read if len(sample[1]) > 2 or sample in wanted]
    assert len(documents) >= 10
    assert set(documents) <= wanted
    assert len(batch.input_ids) < batch.read, "documents and pairs share rows"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_text_sees_the_pictures_before_it_and_no_later_one(
    built: Published, tmp_path: Path, architecture: str
) -> None:
    config = config_of(architecture)
    stage = built_stage("joint", config)
    model = stage.generative()[0].eval()
    for name, parameter in model.named_parameters():
        if "gate" in name:
            torch.nn.init.constant_(parameter, 0.5)  # closed gates let nothing be seen
    batch = first_batch(stage, config, built.root, tmp_path, size=32)
    assert isinstance(batch, RowBatch) and batch.picture.data is not None
    counts: dict[tuple[int, int], list[int]] = {}
    for at, key in enumerate(zip(batch.picture.row.tolist(), batch.picture.segment.tolist(), strict=True)):
        counts.setdefault(key, []).append(at)
    (row, segment), mine = next((key, mine) for key, mine in counts.items() if len(mine) >= 3)
    changed, start = mine[1], int(batch.picture.start[mine[1]])
    data = batch.picture.data.clone()
    data[changed] = 255 - data[changed]
    other = replace(batch, picture=replace(batch.picture, data=data))
    with torch.no_grad():
        before, after = (model.hidden(model.llm, model.embed(one), one) for one in (batch, other))
    differs = (before - after).abs().amax(-1) > 1e-6
    assert not differs[row, :start].any()
    own = batch.segment[row] == segment
    assert differs[row, start:][own[start:]].any()
    assert not differs[row][~own].any()
    assert not differs[[at for at in range(len(differs)) if at != row]].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_joint_stage_trains_on_documents_and_the_other_stages_pass_them_over(
    built: Published, tmp_path: Path, architecture: str
) -> None:
    results = train(built.root, ["align", "joint", "instruct"], config_of(architecture), tmp_path)
    assert [result.steps for result in results] == [4, 3, 4]
    for stage in ("align", "joint", "instruct"):
        lines = [line for line in read_log(tmp_path / stage) if line["kind"] == "train"]
        assert lines and all(np.isfinite(line["loss"]) for line in lines)
        assert lines[-1]["bad_samples"] == 0
    samples = open_training_release(built.root, tmp_path / "data").samples("train")
    left_out = [line for line in read_log(tmp_path / "align") if line["kind"] == LEFT_OUT]
    assert [line["document"] for line in left_out] == [int((samples["pictures"] > 0).sum())]
    assert stage_report(tmp_path / "align", built.root).counts["document_not_read"] == left_out[0]["document"]
    assert not [line for line in read_log(tmp_path / "joint") if line["kind"] == LEFT_OUT]


def test_align_reads_pairs_only(built: Published, tmp_path: Path) -> None:
    config = config_of()
    release = open_training_release(built.root, tmp_path)
    stages = [built_stage(stage, config) for stage in ("align", "joint")]
    aligned, joint = (make_reader(stage, release, config, "train", 4, Share()).source for stage in stages)
    samples = release.samples("train")
    assert (len(aligned), len(joint)) == (int((samples["pictures"] == 0).sum()), len(samples))
    assert int((samples["pictures"] > 0).sum()) >= 10


def test_a_release_of_documents_alone_says_why_nothing_can_be_aligned(web: Web, tmp_path: Path) -> None:
    built = corpus_of_documents(tmp_path / "corpus", web)
    built.sections["sources"] = built.sections["sources"][:1]
    write(built, DOCUMENTS[:6])
    built.build()
    config = config_of()
    release = open_training_release(built.root, tmp_path / "cache")
    with pytest.raises(EmptySplit, match=r"stage `align` leaves documents out.*Remedy"):
        make_reader(built_stage("align", config), release, config, "train", 4, Share())


def test_a_document_that_is_too_long_is_cut_at_a_border(built: Published, tmp_path: Path) -> None:
    config = config_of(pack_length=120, max_text_tokens=90)
    stage = built_stage("joint", config)
    batch = first_batch(stage, config, built.root, tmp_path, size=64)
    assert isinstance(batch, RowBatch) and batch.cut_tokens > 0
    wanted = [expected(document) for document in DOCUMENTS]
    for numbers, texts in read_back(batch, stage.generative()[0].picture_tokens):
        is_beginning = [
            numbers == whole[: len(numbers)] and all(a == b for a, b in zip(texts, of_whole, strict=False))
            for whole, of_whole in wanted
        ]
        is_caption = len(numbers) == 1 and texts[0] == "" and texts[1].startswith("picture number")
        assert any(is_beginning) or is_caption or len(numbers) == 0


def plainly_cut(pieces: list[int], tokens: int, pictures: int, width: int, length: int) -> tuple[int, int]:
    """Text tokens and pictures of the longest beginning that fits and ends with a text, the start token among it."""
    best = None
    for last, _ in enumerate(pieces[: pictures + 1]):
        text = 1 + sum(pieces[: last + 1])
        if pieces[last] + (last == 0) and text <= tokens and text + last * width <= length:
            best = text, last
    if best is not None and best[0] > 1:
        return best
    first = next((at for at, size in enumerate(pieces[: pictures + 1]) if size), None)
    if first is None:
        return best or (0, 0)
    room = min(tokens, length - first * width, 1 + pieces[first])
    return (room, first) if room > (first > 0) else (best or (0, 0))


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=6),
    st.integers(1, 20),
    st.integers(0, 6),
    st.integers(0, 4),
    st.integers(2, 30),
)
def test_a_cut_document_is_its_longest_beginning_that_fits(pieces, tokens, pictures, width, length):
    sizes = [*pieces[:-1], pieces[-1] + 1]  # the end-of-text token
    ids = list(range(1 + sum(sizes)))
    stops = np.cumsum([1 + sizes[0], *sizes[1:]]).tolist()
    encoded = Encoded(ids, [IGNORED, *ids[1:]], stops[:-1])
    layout = Layout(width, 0, length, tokens, packed=True, template=False)
    cut = cut_document(encoded, tokens, min(pictures, len(sizes) - 1), layout)
    end, kept = plainly_cut(sizes, tokens, min(pictures, len(sizes) - 1), width, length)
    assert (len(cut.ids), len(cut.media_at)) == (end, kept)
    assert cut.ids == ids[:end] and cut.media_at == stops[:kept]
    assert len(cut.ids) <= tokens and len(cut.ids) + kept * width <= max(length, 1)


def test_a_document_is_learned_but_for_its_start():
    text = f"one{MEDIA_PLACEHOLDER}two </s>{MEDIA_PLACEHOLDER}{MEDIA_PLACEHOLDER}"
    encoded = CODEC.document(text)
    assert encoded.labels == [IGNORED, *encoded.ids[1:]]
    assert encoded.ids[-1] == CODEC.eos and CODEC.eos not in encoded.ids[1:-1]
    pieces = np.split(encoded.ids, encoded.media_at)
    assert [CODEC.decode(piece[piece != CODEC.start].tolist()) for piece in pieces] == ["one", "two < /s>", "", ""]


def test_lost_pictures_are_among_the_documents():
    assert sum(isinstance(one, int) and one >= LOST for document in DOCUMENTS for one in document) > 10
