"""A LLaVA folder is the start of stages `joint` and `instruct`: the same logits, and each part in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmdata.errors import UserError
from tests.support.hf_folders import save_llava, save_vision_language
from tests.support.tiny_run import settings
from tests.support.trained import checkpoint_of, hidden, photo, pixels
from training.config import TrainConfig
from training.evaluate.answer import answer, question_batch
from training.export.export import export
from training.export.exported import load_exported
from training.stages.stage_model import build_model, load_model

QUESTION = "What is this?"


def config_of(folder: Path, **model: Any) -> TrainConfig:
    return settings(model={"llava": str(folder), "llm": {}, **model})


@torch.no_grad()
def theirs(model: Any, folder: Path, shown: torch.Tensor) -> torch.Tensor:
    """The logits L,V that transformers' own processor and model give for a question about a picture."""
    from transformers import AutoProcessor

    picture = Image.fromarray(shown[0].permute(1, 2, 0).numpy())
    content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    return model(**inputs).logits[0]


@torch.no_grad()
def ours(built: Any, shown: torch.Tensor) -> torch.Tensor:
    row = question_batch(built, shown, QUESTION)
    return built.llm.get_output_embeddings()(built.model.hidden(built.llm, built.model.embed(row), row))[0]


@pytest.mark.parametrize(
    ("tower", "how"),
    [
        ("clip", {"vision_feature_layer": -2}),
        ("clip", {"vision_feature_layer": 2, "multimodal_projector_bias": False}),
        ("siglip", {"vision_feature_layer": -1}),
        ("siglip", {"vision_feature_layer": -2, "projector_hidden_act": "linear"}),
    ],
)
def test_logits_are_those_of_transformers(tower: str, how: dict[str, Any], tmp_path: Path) -> None:
    model = save_llava(tmp_path, tower, **how)
    built = build_model("instruct", config_of(tmp_path))
    built.model.eval()
    expected = theirs(model, tmp_path, pixels(0))
    torch.testing.assert_close(ours(built, pixels(0)), expected, atol=1e-4, rtol=1e-4)
    assert (theirs(model, tmp_path, pixels(1)) - expected).abs().max() > 1e-2, "it does not look at the picture"


def test_stage_instruct_trains_on_and_its_export_needs_the_folder_no_more(tmp_path: Path) -> None:
    save_llava(tmp_path / "llava")
    place = checkpoint_of(tmp_path, "instruct", config_of(tmp_path / "llava"))
    before, config = load_model(place)
    assert config.model.picture_layer == -1  # the folder says -2
    export(place, tmp_path / "out")
    (tmp_path / "llava").rename(tmp_path / "gone")
    after = load_exported(tmp_path / "out")
    assert (after.config.model.picture_layer, after.config.model.projector) == (-2, "mlp")
    torch.testing.assert_close(hidden(after, pixels(0)), hidden(before, pixels(0)), atol=1e-4, rtol=1e-4)
    assert answer(before, [photo(0)], QUESTION) == answer(after, [photo(0)], QUESTION)


def test_there_is_nothing_to_align_and_the_remedy_works(tmp_path: Path) -> None:
    save_llava(tmp_path)
    with pytest.raises(UserError, match=r"no text tower, .* Remedy: --stage instruct, or --stage joint"):
        build_model("align", config_of(tmp_path))
    assert build_model("joint", config_of(tmp_path)).stage == "joint"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            {"vision_feature_select_strategy": "full"},
            r"select_strategy is `full`; what loads is default",
        ),
        ({"projector_hidden_act": "relu"}, r"projector_hidden_act is `relu`; what loads is gelu or linear"),
        ({"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]"),
    ],
)
def test_what_cannot_be_placed_is_named(how: dict[str, Any], says: str, tmp_path: Path) -> None:
    save_llava(tmp_path, **how)
    with pytest.raises(UserError, match=says):
        build_model("instruct", config_of(tmp_path))


def test_another_architecture_is_named_and_its_language_model_loads(tmp_path: Path) -> None:
    save_vision_language("llava_onevision", tmp_path)
    from transformers import SiglipImageProcessor

    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"of type `llava_onevision` .* of type `llava` .*Remedy: .*model\.llm\.model"):
        build_model("instruct", config_of(tmp_path))
    with pytest.raises(UserError, match=r"model\.llava: /none cannot be loaded: .* Remedy: "):
        build_model("instruct", config_of(Path("/none")))
    assert build_model("instruct", settings(model={"llm": {"kind": "hf", "model": str(tmp_path)}})).llm is not None
