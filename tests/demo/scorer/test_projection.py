"""Training pictures and texts of the offline scorer, and its command."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.demo.drawings import emoji_base, is_demo_base
from mmdata.demo.scorer import projection
from mmdata.demo.scorer.frozen_features import embed_captions
from mmdata.demo.scorer.projection import class_embeddings, class_texts, training_pictures
from tests.support.clip_art import write_clip_art


def test_no_training_picture_is_one_that_the_demo_shows():
    emoji, photos = list(training_pictures(None))
    assert len(emoji) > 500
    assert not any(is_demo_base(emoji_base(picture.key)) for picture in emoji)
    assert not {picture.key for picture in photos} & {"astronaut", "chelsea", "coffee", "rocket"}


def test_clip_art_of_the_evaluation_is_held_out(tmp_path):
    write_clip_art(tmp_path, "a/owl.svg", "Owl", "bird")
    write_clip_art(tmp_path, "a/cow.svg", "Cow", "cattle")
    held = tmp_path / "captions.parquet"
    pl.DataFrame({"origin": ["openclipart-svg/usr/share/openclipart/svg/a/owl.svg", "other/x.png"]}).write_parquet(held)
    last = list(training_pictures(tmp_path, held))[-1]
    assert [picture.key for picture in last] == ["a/cow.svg"]


def test_classes_are_named_in_the_classifiers_order():
    texts = class_texts()
    assert len(texts) == 1000
    assert texts[0][0] == "tench"
    assert texts[285][2] == "a photo of a Egyptian cat"


def test_missing_data_folder_is_a_user_error(tmp_path, capsys):
    assert projection.main(["--out", str(tmp_path / "x.safetensors"), "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder. Remedy" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_a_class_has_the_mean_direction_of_its_texts(parts):
    model, _, tokenizer = parts
    [tench, _] = embeddings = class_embeddings(model, tokenizer, [["tench", "a photo of a tench"], ["goldfish"]])
    alone = embed_captions(model, tokenizer, ["tench", "a photo of a tench"]).mean(axis=0)
    assert np.allclose(tench, alone / np.linalg.norm(alone), atol=1e-6)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1)
