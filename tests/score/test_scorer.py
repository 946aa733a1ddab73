"""The scorer's embeddings are open_clip's scorer, in any batch size, precision and order."""

from __future__ import annotations

import random
import string
from pathlib import Path
from threading import Barrier, get_ident

import numpy as np
import pytest
import torch

from mmdata.config import Score
from mmdata.config.scorers import scorer_name
from mmdata.errors import UserError
from mmdata.score.decode import decode_picture
from mmdata.score.pretrained import load_model
from mmdata.score.scorer import IMAGES_PER_PASS, TEXTS_PER_PASS, ClipScorer, load_scorer, pair_scores
from tests.support.scoring import encode, open_clip_embeddings, photo, save_model


def embed(scorer: ClipScorer, pictures: list[bytes]) -> np.ndarray:
    pixels = np.empty((len(pictures), *scorer.preprocess.size, 3), np.uint8)
    for at, picture in enumerate(pictures):
        assert decode_picture(picture, scorer.preprocess, pixels[at]).problem is None
    return scorer.embed_images(pixels)


@pytest.mark.parametrize("side", [48, 256, 640, 1100])
def test_scores_equal_those_of_a_plain_open_clip_loop(scorer: ClipScorer, tiny_folder: Path, side: int) -> None:
    pictures = [encode(photo(i, int(side * 1.3), side)) for i in range(6)] + [encode(photo(9, side, int(side * 2.1)))]
    captions = [f"picture {i} of {side} pixels with some words" for i in range(len(pictures))]
    images, texts = open_clip_embeddings(tiny_folder, pictures, captions)
    wanted = (images * texts).sum(1)
    scores = pair_scores(embed(scorer, pictures), scorer.embed_texts(captions))
    bound = 1e-3 if side < 512 else 0.01  # from 512 on JPEG is decoded at a fraction of its size
    assert np.abs(scores - wanted).mean() < bound
    assert np.abs(scores - wanted).max() < 3 * bound


def test_batch_size_changes_neither_values_nor_order(tiny_folder: Path) -> None:
    pictures = [encode(photo(i)) for i in range(11)]
    captions = [f"{'long ' * (i % 5)}caption {i}" for i in range(11)]
    results = []
    for batch_size in (1, 4, 64):
        scorer = load_scorer(Score(model=f"local-dir:{tiny_folder}", device="cpu", batch_size=batch_size))
        results.append((embed(scorer, pictures), scorer.embed_texts(captions)))
    for images, texts in results[1:]:
        np.testing.assert_allclose(images, results[0][0], atol=1e-5)
        np.testing.assert_allclose(texts, results[0][1], atol=1e-5)
    assert np.allclose(np.linalg.norm(results[0][0], axis=1), 1, atol=1e-5)


def test_a_cpu_takes_no_more_at_once_than_fits_its_caches(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = ClipScorer(load_model(Score(model=str(tiny_folder))), batch_size=256)
    seen: dict[str, list[int]] = {"images": [], "texts": []}
    for kind, sizes in seen.items():
        name = f"_encode_{kind[:-1]}"
        real = getattr(scorer, name)
        monkeypatch.setattr(scorer, name, lambda batch, sizes=sizes, real=real: sizes.append(len(batch)) or real(batch))
    count = 40 * torch.get_num_threads()
    scorer.embed_images(np.zeros((count, *scorer.preprocess.size, 3), np.uint8))
    scorer.embed_texts(["a cat"] * count)
    assert (max(seen["images"]), sum(seen["images"])) == (IMAGES_PER_PASS, count)
    assert (max(seen["texts"]), sum(seen["texts"])) == (TEXTS_PER_PASS, count)


def test_embeddings_do_not_depend_on_the_number_of_cores(tiny_folder: Path) -> None:
    pictures = [encode(photo(i)) for i in range(20)]
    captions = [f"{'long ' * (i % 7)}caption {i}" for i in range(70)]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            scorer = ClipScorer(load_model(Score(model=str(tiny_folder))))
            results.append((embed(scorer, pictures), scorer.embed_texts(captions), torch.get_num_threads()))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert [threads for *_, threads in results] == [1, 3], "the caller's threads stay"


def test_each_core_runs_passes_of_its_own(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scorer = ClipScorer(load_model(Score(model=str(tiny_folder))))
    finally:
        torch.set_num_threads(threads)
    both, real, seen = Barrier(2), scorer._encode_image, set()

    def encode_image(batch: torch.Tensor) -> torch.Tensor:
        both.wait(timeout=30)  # a pass alone would wait in vain
        seen.add((get_ident(), torch.get_num_threads()))
        return real(batch)

    monkeypatch.setattr(scorer, "_encode_image", encode_image)
    scorer.embed_images(np.zeros((4 * IMAGES_PER_PASS, *scorer.preprocess.size, 3), np.uint8))
    assert len(seen) == 2
    assert {threads for _, threads in seen} == {1}


def test_a_word_without_end_is_cut_before_it_is_tokenized(scorer: ClipScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize, lengths = scorer._tokenize, []
    monkeypatch.setattr(scorer, "_tokenize", lambda texts: (lengths.extend(map(len, texts)), tokenize(texts))[1])
    word = "".join(random.Random(1).choices(string.ascii_lowercase, k=10_000))
    long, short = scorer.embed_texts([word, word[:3_000]])
    assert max(lengths) <= 32 * 77
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_nothing_to_embed_gives_nothing(scorer: ClipScorer) -> None:
    assert scorer.embed_images(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 32)
    assert scorer.embed_texts([]).shape == (0, 32)


def test_pictures_of_the_wrong_shape_are_refused(scorer: ClipScorer) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        scorer.embed_images(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        scorer.embed_images(np.zeros((1, 64, 64, 3), np.float32))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_near_and_the_cosine_is_fp32(tiny_folder: Path, scorer: ClipScorer, precision: str) -> None:
    low = load_scorer(Score(model=f"local-dir:{tiny_folder}", device="cpu", precision=precision))
    pictures = [encode(photo(i)) for i in range(4)]
    exact, near = embed(scorer, pictures), embed(low, pictures)
    assert near.dtype == np.float32 and not np.array_equal(exact, near)
    assert (exact * near).sum(1).min() > 0.99
    assert low.fingerprint != scorer.fingerprint, "scores of different number formats never mix"


def test_the_model_is_loaded_once_a_process(tiny: Score) -> None:
    assert load_scorer(tiny) is load_scorer(tiny)


def test_scorers_of_different_weights_or_preprocessing_have_different_fingerprints(
    tmp_path: Path, scorer: ClipScorer
) -> None:
    def mark(folder: str, **settings) -> str:  # type: ignore[no-untyped-def]
        path = save_model(tmp_path / folder / "tiny", **settings)
        return load_scorer(Score(model=f"local-dir:{path}", device="cpu")).fingerprint

    same, other_weights = mark("a", seed=1), mark("b", seed=2)
    other_mean, other_mode = mark("c", seed=1, mean=[0.5, 0.5, 0.5]), mark("d", seed=1, resize_mode="squash")
    assert same == scorer.fingerprint  # the same model elsewhere is the same scorer
    assert len({same, other_weights, other_mean, other_mode}) == 4


def test_a_device_that_is_not_there_is_an_error(tiny: Score) -> None:
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(UserError, match=r"score\.device"):
            load_scorer(tiny.model_copy(update={"device": device}))


def test_names_hold_no_local_paths() -> None:
    assert scorer_name(Score()) == "ViT-B-32/laion2b_s34b_b79k"
    assert scorer_name(Score(model="ViT-B-32", pretrained="/home/someone/run.pt")) == "ViT-B-32/run.pt"
    assert scorer_name(Score(model="local-dir:/home/someone/mine")) == "local-dir:mine"
    assert scorer_name(Score(model="hf-hub:laion/x")) == "hf-hub:laion/x"
    assert scorer_name(Score(model="demo")) == "demo (small offline scorer)"


def test_a_folder_called_demo_is_not_taken_for_the_demo_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmdata.config.scorers import resolved

    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "scorer").mkdir(parents=True)
    (tmp_path / "demo" / "scorer" / "open_clip_config.json").write_text("{}")
    assert resolved(Score(model="demo")).model == "demo"
    assert resolved(Score(model="./demo")).model == "local-dir:demo/scorer"
    assert resolved(Score(model="ViT-B/32")).model == "ViT-B/32"
