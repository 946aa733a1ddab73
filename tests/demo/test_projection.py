"""Training the offline scorer's projections: what is read, what is left out, and that it repeats."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mmdata.demo.drawings import demo_emoji, emoji_base, is_demo_base, training_emoji
from mmdata.demo.scorer import fit, measure, projection, quality
from mmdata.demo.scorer.clip_art import emoji_names, icon_set, openclipart
from mmdata.demo.scorer.frozen_features import embed_captions, picture_features
from mmdata.demo.scorer.projection import class_embeddings, class_texts, train, training_pictures, write_projections
from mmdata.errors import DataError, UserError
from mmdata.score import offline

CIRCLE = '<circle cx="8" cy="8" r="6" fill="red"/>'
CLIP_ART = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="d" xmlns:rdf="r" width="20" height="20"><metadata>
<dc:title>{title}</dc:title><rdf:li>{keyword}</rdf:li><rdf:li>Ann Artist</rdf:li>
<dc:title>Ann Artist</dc:title></metadata><rect width="20" height="9" fill="{colour}"/></svg>"""


@pytest.fixture(scope="module")
def parts():
    folder = offline.text_folder()
    return offline.assemble(64, folder).eval(), offline.preprocess(), offline.tokenizer(folder)


@pytest.fixture(scope="module")
def classes(parts):
    """The class columns' start from the shortest names only: a quick stand-in for all that training says of a class."""
    return class_embeddings(parts[0], parts[2], [texts[:1] for texts in class_texts()])


@pytest.fixture
def noto_package(tmp_path):
    """An icon package of one training emoji, one demo emoji, one skin tone and one alias."""
    ours = next(e for e in training_emoji() if not e.has_skin_tone and "-" not in e.code and len(e.code) == 5)
    shown = next(e for e in demo_emoji() if not e.has_skin_tone and "-" not in e.code and len(e.code) == 5)
    files = {
        "icons.json": {"prefix": "noto", "icons": {n: {"body": CIRCLE} for n in ("ours", "shown", "tone", "alias")}},
        "chars.json": {ours.code.lower(): "ours", shown.code.lower(): "shown", "1f44b-1f3fb": "tone"},
    }
    path = tmp_path / "iconify-json-noto-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path, ours, shown


def _clip_art(folder, name, title, keyword, colour="blue"):
    path = folder / "usr/share/openclipart/svg" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CLIP_ART.format(title=title, keyword=keyword, colour=colour))


def test_emoji_of_any_vendor_follow_the_demo_split(noto_package):
    path, ours, shown = noto_package
    read = list(icon_set(path, "noto"))
    assert {picture.key for picture in read} == {ours.code, shown.code}
    offered = next(pictures for pictures in training_pictures(path.parent) if pictures[0].source == "noto")
    assert [picture.key for picture in offered] == [ours.code]
    assert ours.name in offered[0].captions


def test_no_training_picture_is_one_that_the_demo_shows():
    emoji, photos = list(training_pictures(None))
    assert len(emoji) > 500
    assert not any(is_demo_base(emoji_base(picture.key)) for picture in emoji)
    assert not {picture.key for picture in photos} & {"astronaut", "chelsea", "coffee", "rocket"}


def test_clip_art_without_words_of_its_own_is_left_out(tmp_path):
    _clip_art(tmp_path, "animals/birds/owl.svg", "Owl_on a branch", "bird")
    _clip_art(tmp_path, "animals/x.svg", "clipart by Nicu", "", colour="red")
    _clip_art(tmp_path, "animals/twin.svg", "Owl_on a branch", "bird")  # the same bytes
    found = list(openclipart(tmp_path))
    assert [picture.key for picture in found] == ["animals/birds/owl.svg"]
    assert found[0].captions[0] == "Owl on a branch"
    assert "Owl on a branch, bird" in found[0].captions
    assert not any("Ann Artist" in caption for caption in found[0].captions)
    assert found[0].read().getpixel((100, 10)) == (0, 0, 255, 255)


def test_clip_art_of_the_evaluation_is_held_out(tmp_path):
    _clip_art(tmp_path, "a/owl.svg", "Owl", "bird")
    _clip_art(tmp_path, "a/cow.svg", "Cow", "cattle")
    held = tmp_path / "captions.parquet"
    pl.DataFrame({"origin": ["openclipart-svg/usr/share/openclipart/svg/a/owl.svg", "other/x.png"]}).write_parquet(held)
    last = list(training_pictures(tmp_path, held))[-1]
    assert [picture.key for picture in last] == ["a/cow.svg"]


def test_unreadable_picture_is_left_out_and_the_rest_is_measured_once(tmp_path, parts):
    model, preprocess, _ = parts
    _clip_art(tmp_path, "a/owl.svg", "Owl", "bird")
    _clip_art(tmp_path, "a/torn.svg", "Torn page", "paper")
    torn = tmp_path / "usr/share/openclipart/svg/a/torn.svg"
    torn.write_text(torn.read_text()[:-30])
    pictures = list(openclipart(tmp_path))
    with pytest.raises(DataError, match=r"torn\.svg: cannot be rendered"):
        next(p for p in pictures if "torn" in p.key).read()
    first = picture_features(model, preprocess, pictures, tmp_path / "cache")
    assert first.keys == ["a/owl.svg"]
    assert first.features.shape == (1, 1280)
    again = picture_features(None, None, pictures, tmp_path / "cache")  # no model to measure with: it must be read
    assert np.array_equal(first.features, again.features)


def test_captions_are_embedded_as_the_text_tower_embeds_them(parts):
    model, _, tokenizer = parts
    texts = ["a cat", "a dog on a long road through a forest", "a cat"]
    found = embed_captions(model, tokenizer, texts)
    with torch.inference_mode():
        full = torch.nn.functional.normalize(_pooled(model, tokenizer(texts)), dim=-1).numpy()
    assert np.allclose(found, full, atol=1e-5)
    assert embed_captions(model, tokenizer, []).shape == (0, 384)


def _pooled(model, tokens):
    mask = (tokens != 0).long()
    return model.text.pooler(model.text.transformer(input_ids=tokens, attention_mask=mask), mask)


def test_classes_are_named_in_the_classifiers_order():
    texts = class_texts()
    assert len(texts) == 1000
    assert texts[0][0] == "tench"
    assert texts[285][2] == "a photo of a Egyptian cat"


def test_training_repeats_to_the_bit_and_moves_off_its_start(tmp_path, parts, classes):
    model, preprocess, tokenizer = parts
    pictures = next(training_pictures(None))[300:324]
    source = picture_features(model, preprocess, pictures, tmp_path / "cache")
    assert len(source.keys) == 24
    settings = fit.Settings(dim=64, steps=6, batch=8)
    one, two = (train([source], classes, settings, model, tokenizer)[0] for _ in range(2))
    start, none = train([source], classes, fit.Settings(dim=64, steps=0), model, tokenizer)
    other, taken = train([source], classes, fit.Settings(dim=64, steps=6, batch=8, seed=1), model, tokenizer)
    weight = "visual.head.features.weight"
    assert (none, taken) == (0, 6)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one[weight], start[weight])
    assert not torch.equal(one[weight], other[weight])
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    digests = [
        write_projections(state, file, [source], settings, 6) for state, file in zip((one, two), files, strict=True)
    ]
    assert digests[0] == digests[1]

    scorer = offline.build(tmp_path / "0.safetensors")
    pairs = measure.embed_pairs(scorer, ((p.read(), p.captions[0], "") for p in pictures))
    assert pairs.images.shape == (24, 64)
    assert quality.measure(pairs.images, pairs.texts, pairs.captions).auc > 0.9  # it has seen these


def test_source_kept_aside_says_when_to_stop(tmp_path, parts, classes):
    model, preprocess, tokenizer = parts
    pictures = next(training_pictures(None))
    seen = picture_features(model, preprocess, pictures[300:324], tmp_path / "cache")
    right = replace(
        picture_features(model, preprocess, pictures[400:424], tmp_path / "cache"), source=projection.HELD_OUT_SOURCE
    )
    settings = fit.Settings(dim=64, steps=20, check_steps=1, batch=8, learning_rate=1.0)  # each step does harm
    state, steps = train([seen, right], classes, settings, model, tokenizer)
    start, _ = train([seen], classes, replace(settings, steps=0), model, tokenizer)
    assert steps == 0
    assert all(torch.equal(state[name], start[name]) for name in start)


def test_missing_data_folder_is_a_user_error(tmp_path, capsys):
    assert projection.main(["--out", str(tmp_path / "x.safetensors"), "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder. Remedy" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_package_without_icons_names_what_is_missing(tmp_path):
    empty = tmp_path / "iconify-json-noto-1.tgz"
    with tarfile.open(empty, "w:gz"):
        pass
    with pytest.raises(UserError, match=r"no package/icons\.json inside"):
        list(icon_set(empty, "noto"))


def test_emoji_names_are_words():
    assert emoji_names("1F436")[0] == "dog face"
    assert emoji_names("0041") == ()


def test_auc_counts_ties_as_half():
    assert quality.auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(0.875)
    assert quality.auc(np.zeros(3), np.zeros(5)) == 0.5
    assert np.isnan(quality.auc(np.zeros(0), np.zeros(5)))


def test_a_perfect_scorer_keeps_only_clean_pairs_and_a_blind_one_gains_nothing():
    rows = np.eye(100, dtype=np.float32)
    captions = [str(i) for i in range(100)]
    perfect = quality.measure(rows, rows, captions, shuffled=0.3, kept=0.7)
    assert perfect.auc == 1.0
    assert perfect.clean_after > 0.99
    blind = quality.measure(np.ones((100, 4), np.float32), np.ones((100, 4), np.float32), captions)
    assert blind.auc == 0.5
    assert abs(blind.clean_after - blind.clean_before) < 0.05
