"""An exported folder says what the checkpoint said, to transformers and to our loader."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mmdata.errors import DataError, UserError
from tests.support.trained import FUSIONS, checkpoint_of, config_of, hidden, photo, pixels
from training.evaluate.answer import answer, question_batch
from training.export.export import export
from training.export.exported import load_exported
from training.stages.stage_model import load_model


@pytest.mark.parametrize("architecture", ["single_tower", "cross_attention"])
def test_the_folder_is_a_plain_language_model_to_transformers(tmp_path: Path, architecture: str) -> None:
    place = checkpoint_of(tmp_path, "instruct", config_of(architecture, "late"))
    export(place, tmp_path / "out")
    built, _ = load_model(place)
    assert any("lora_" in name for name in built.model.state_dict())
    llm = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "out"))
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == plain.state_dict().keys()
    text = "Which picture? 哪张图"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert built.codec is not None
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert ids.tolist() == built.codec.tokenizer(text, return_tensors="pt")["input_ids"].tolist()
    with torch.no_grad():
        assert (llm(ids).logits - built.llm(ids).logits).abs().max() < 1e-5
        for module in built.llm.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(False)
        assert (llm(ids).logits - built.llm(ids).logits).abs().max() > 1e-2, "the adapters were not merged"


@pytest.mark.parametrize(
    ("architecture", "fusion", "stage"),
    [(*kinds, stage) for kinds, stage in zip(FUSIONS, cycle(("joint", "instruct")), strict=False)],
)
def test_it_answers_about_pictures_as_the_checkpoint_did(
    tmp_path: Path, architecture: str, fusion: str, stage: str
) -> None:
    place = checkpoint_of(tmp_path, stage, config_of(architecture, fusion))
    export(place, tmp_path / "out")
    before, _ = load_model(place)
    after = load_exported(tmp_path / "out")
    asked = "What is this?" if stage == "instruct" else ""
    one, other = pixels(0), pixels(1)
    torch.testing.assert_close(hidden(after, one), hidden(before, one), atol=1e-5, rtol=0)
    assert (hidden(after, one) - hidden(after, other)).abs().max() > 1e-4, "it does not look at the picture"
    rows = [question_batch(built, one, asked) for built in (before, after)]
    models: list[Any] = [before.model, after.model]
    (ids,) = zip(*[model.generate(row, 24, ends=()) for model, row in zip(models, rows, strict=True)], strict=True)
    assert ids[0] == ids[1]
    assert len(ids[0]) == 24
    assert answer(before, [photo(0)], asked) == answer(after, [photo(0)], asked)


def test_sound_and_hugging_face_encoders_go_along(tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vit = {"model_type": "vit", "image_size": 32, "patch_size": 16, **small}
    bert = {"model_type": "bert", "vocab_size": 300, "max_position_embeddings": 32, **small}
    encoder = {"kind": "hf", "config": vit, "text_config": bert, "tokenizer": "bytes", "embed_dim": 16}
    audio = {"kind": "logmel_vit", "seconds": 0.64, "config": small}
    place = checkpoint_of(tmp_path, "joint", config_of(encoder=encoder, audio=audio))
    export(place, tmp_path / "out")
    before, after = load_model(place)[0], load_exported(tmp_path / "out")
    two = pixels(0, 2)
    torch.testing.assert_close(hidden(after, two), hidden(before, two), atol=1e-5, rtol=0)
    saved, loaded = before.model.state_dict(), after.model.state_dict()
    heard = [name for name in saved if name.startswith(("audio.", "hearing."))]
    assert heard
    assert all(torch.equal(saved[name], loaded[name]) for name in heard)


def test_nothing_in_the_folder_needs_unpickling(tmp_path: Path) -> None:
    place = checkpoint_of(tmp_path, "instruct", config_of("cross_attention"))
    export(place, tmp_path / "out", int8=True, prune=0.5)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".sha256", ".json", ".md"}
    assert {path.name for path in (tmp_path / "out" / "multimodal").iterdir() if path.suffix != ".sha256"} == {
        "config.json", "encoder.safetensors", "connector.safetensors", "gates.safetensors",
    }  # fmt: skip


def test_broken_folders_are_named(tmp_path: Path) -> None:
    place = checkpoint_of(tmp_path, "joint", config_of())
    export(place, tmp_path / "out")
    with pytest.raises(UserError, match="no exported language model there"):
        load_exported(tmp_path)
    connector = tmp_path / "out" / "multimodal" / "connector.safetensors"
    whole = connector.read_bytes()
    connector.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"connector\.safetensors: its bytes have changed .*Remedy: export"):
        load_exported(tmp_path / "out")
    for digest in (tmp_path / "out").rglob("*.sha256"):
        digest.unlink()  # as in the folders of older versions
    connector.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"connector\.safetensors: cannot be read"):
        load_exported(tmp_path / "out")
    connector.write_bytes((tmp_path / "out" / "multimodal" / "encoder.safetensors").read_bytes())
    with pytest.raises(DataError, match=r"connector\.safetensors: is of another model"):
        load_exported(tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot be loaded"):
        load_exported(tmp_path / "out")
    described = tmp_path / "out" / "multimodal" / "config.json"
    described.write_text(described.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(DataError, match="format 9"):
        load_exported(tmp_path / "out")
