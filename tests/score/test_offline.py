"""The small offline scorer as it is shipped: it loads right, says what it is, and is better than guessing."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmdata.demo.drawings import demo_emoji, demo_photos, draw
from mmdata.demo.scorer import measure, quality
from mmdata.errors import UserError
from mmdata.score import offline
from mmdata.score.offline import IMAGE_WIDTH, IMAGENET_CLASSES

DIM = 256


def refuse_network(*_: object, **__: object) -> None:
    raise AssertionError("the network was used")


@pytest.fixture(scope="module")
def scorer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", refuse_network)
        patch.setattr(socket, "getaddrinfo", refuse_network)
        patch.setattr(socket.socket, "connect", refuse_network)
        return offline.build()


def test_embeddings_have_the_documented_size_and_unit_length(scorer):
    model, preprocess, tokenizer = scorer
    pixels = preprocess(Image.new("RGB", (300, 100), "red"))
    tokens = tokenizer(["a red rectangle", "", "wörter " * 200])
    assert pixels.shape == (3, offline.IMAGE_SIZE_PX, offline.IMAGE_SIZE_PX)
    assert tokens.shape == (3, offline.CONTEXT_LENGTH)
    with torch.inference_mode():
        image = model.encode_image(pixels[None], normalize=True)
        text = model.encode_text(tokens, normalize=True)
    assert image.shape == (1, DIM)
    assert text.shape == (3, DIM)
    norms = torch.cat([image, text]).norm(dim=-1)
    assert torch.allclose(norms, torch.ones(4), atol=1e-5)


def test_model_is_an_open_clip_model_in_eval_mode(scorer):
    import open_clip

    model = scorer[0]
    assert isinstance(model, open_clip.CustomTextCLIP)
    assert not model.training
    image, text, scale = model(torch.zeros(1, 3, 224, 224), scorer[2](["a cat"]))
    assert image.shape == text.shape == (1, DIM)
    assert scale > 0


def test_text_tower_equals_transformers_own_mean_pooling(scorer):
    from transformers import AutoModel, AutoTokenizer

    folder = str(offline.text_folder())
    reference = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    texts = ["a cat", "two dogs playing in the snow near a house"]
    batch = AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts, padding=True, return_tensors="pt")
    model, _, tokenizer = scorer
    tokens = tokenizer(texts)
    mask = (tokens != 0).long()
    with torch.inference_mode():
        states, weights = reference(**batch).last_hidden_state, batch["attention_mask"][..., None]
        expected = (states * weights).sum(1) / weights.sum(1)
        pooled = model.text.pooler(model.text.transformer(input_ids=tokens, attention_mask=mask), mask)
    assert torch.allclose(pooled, expected, atol=1e-4)


def test_image_tower_and_classifier_recognise_the_cat(scorer):
    """Wrong padding, a wrong tensor order or batch-norm statistics left at 0 and 1 would each lose the cat."""
    from timm.data import ImageNetInfo

    model, preprocess, _ = scorer
    cat = next(photo for photo in demo_photos() if photo.name == "chelsea")
    with torch.inference_mode():
        features = model.visual.trunk(preprocess(Image.fromarray(cat.load()))[None])
        head = model.visual.head
        answer = torch.nn.functional.linear(features, head.classifier_weight, head.classifier_bias).softmax(-1)[0]
    assert features.shape == (1, IMAGE_WIDTH)
    assert answer.shape == (IMAGENET_CLASSES,)
    names = [ImageNetInfo("imagenet-1k").index_to_description(int(i)) for i in answer.topk(3).indices]
    assert sum("cat" in name for name in names) >= 2
    assert answer.topk(3).values.sum() > 0.8


def test_every_tensor_of_the_image_tower_is_the_packaged_one(scorer):
    ours = scorer[0].visual.trunk.state_dict()
    weights = offline.read_image_weights()
    body = [tensor for name, tensor in weights.items() if not name.startswith("_fc.")]
    assert len(ours) == len(body) == 294
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours.values(), body, strict=True))


def test_match_tensors_by_order_refuses_another_shape_or_count():
    weights = {"_conv_stem.weight": torch.zeros(3, 2), "_bn0.bias": torch.zeros(3), "_fc.weight": torch.zeros(1)}
    ours = {"conv_stem.weight": torch.ones(3, 2), "bn1.bias": torch.ones(3)}
    assert torch.equal(offline.match_tensors_by_order(ours, weights)["bn1.bias"], torch.zeros(3))
    with pytest.raises(UserError, match=r"conv_stem\.weight \(2, 2\) does not fit _conv_stem\.weight \(3, 2\)"):
        offline.match_tensors_by_order({**ours, "conv_stem.weight": torch.ones(2, 2)}, weights)
    with pytest.raises(UserError, match=r"bn1\.running_mean"):
        offline.match_tensors_by_order(
            {"conv_stem.weight": torch.ones(3, 2), "bn1.running_mean": torch.ones(3)}, weights
        )
    with pytest.raises(UserError, match="has 1 tensors"):
        offline.match_tensors_by_order({"conv_stem.weight": torch.ones(3, 2)}, weights)


def test_damaged_shipped_weights_are_refused_by_name(tmp_path, monkeypatch):
    bad = bytearray(offline.PROJECTIONS.read_bytes())
    bad[len(bad) // 2] ^= 1
    damaged = tmp_path / "projections.safetensors"
    damaged.write_bytes(bad)
    monkeypatch.setattr(offline, "PROJECTIONS", damaged)
    with pytest.raises(UserError, match=r"projections\.safetensors: sha256 .* is not the pinned .*pip install"):
        offline.build()


def test_projections_of_another_model_are_refused(tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"visual.head.features.weight": torch.zeros(DIM, IMAGE_WIDTH)}, other)
    with pytest.raises(UserError, match=r"other\.safetensors: these are not projections"):
        offline.build(other)
    other.write_bytes(b"no safetensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        offline.build(other)


@pytest.mark.slow
def test_build_needs_no_network():
    """In a new process, where no offline switch is set: the fixture above blocks the network in this one."""
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network touched')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from mmdata.score.offline import build\n"
        "model, preprocess, tokenizer = build()\n"
        "print(model.encode_text(tokenizer(['a cat'])).shape)\n"
    )
    env = {"PATH": "/usr/bin", "OMP_NUM_THREADS": "1", "HF_HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"[1, {DIM}]" in done.stdout


def test_shipped_weights_say_what_they_were_trained_on():
    _, notes = offline.read_projections(offline.PROJECTIONS)
    assert "small offline scorer" in notes["name"]
    assert notes["not"] == "this is not CLIP"
    assert notes["licence"] == "CC-BY-SA-4.0"
    assert notes["pictures"]["openmoji"]["count"] > 500
    assert all(source["licence"] and source["count"] for source in notes["pictures"].values())
    assert len(json.dumps(notes)) < 4000
    assert offline.PROJECTIONS.stat().st_size < 1_500_000


def test_matched_demo_emoji_score_above_shuffled_ones(scorer):
    emoji = [drawing for drawing in demo_emoji() if not drawing.has_skin_tone][::16][:60]
    pairs = measure.embed_pairs(scorer, ((Image.open(io.BytesIO(draw(e, 224))), e.name, "") for e in emoji))
    measured = quality.measure(pairs.images, pairs.texts, pairs.captions, shuffled=0.2, kept=0.75)
    assert measured.rows == 60
    assert measured.auc > 0.8
    assert measured.clean_after > measured.clean_before + 0.08


def test_matched_demo_photos_score_above_shuffled_ones(scorer):
    photos = demo_photos()
    read = [(Image.fromarray(photo.load()), photo.caption, "") for photo in photos]
    pairs = measure.embed_pairs(scorer, read)
    cosines = pairs.images @ pairs.texts.T
    off = cosines[~np.eye(len(photos), dtype=bool)]
    assert quality.auc(np.diag(cosines), off) > 0.75


def test_weights_whose_notes_are_damaged_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save

    for notes in ("{broken", "[" * 100_000):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(save({"weight": torch.zeros(2, 2)}, {"training": notes}))
        with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read as safetensors"):
            offline.read_projections(path)
