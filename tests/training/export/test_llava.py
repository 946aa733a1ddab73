"""What LLaVA expresses is written as LLaVA, and transformers alone answers as we do; else the error says why."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmdata.errors import UserError
from tests.support.hf_folders import LLAVA_TEMPLATE, save_dual, save_llava, tokenizer
from tests.support.tiny_run import LLM, built_stage, settings
from tests.support.tiny_towers import BERT, HF, SMALL, open_clip
from tests.support.trained import checkpoint_of, photo, pixels
from training.config import TrainConfig
from training.evaluate.answer import answer
from training.export import llava
from training.export.export import export
from training.export.llava import check_llava, write_llava
from training.model.fusion import Projector
from training.stages.stage_model import StageModel, build_model, load_model

QUESTION = "What is this?"
CHATML = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '</s>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MLP = {"projector": "mlp"}


def config_of(
    folder: Path, llm: dict[str, Any] | None = None, words: dict[str, Any] | None = None, **model: Any
) -> TrainConfig:
    tokenizer(**(words or {})).save_pretrained(folder / "words")
    described = {"kind": "config", "config": {**LLM, **(llm or {})}, "tokenizer": str(folder / "words")}
    return settings(model={**settings().model.model_dump(), **MLP, "llm": described, **model})


def png(shown: torch.Tensor) -> bytes:
    out = BytesIO()
    Image.fromarray(shown[0].permute(1, 2, 0).numpy()).save(out, "PNG")
    return out.getvalue()


def same_answers(built: StageModel, folder: Path) -> None:
    """Compare greedy answers with those of transformers alone, to one picture, to two, and to one of another size."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    question = QUESTION if built.stage == "instruct" else ""
    for pictures in ([png(pixels(0))], [png(pixels(1)), png(pixels(2))], [photo(3)]):
        content = [{"type": "image", "image": Image.open(BytesIO(picture))} for picture in pictures]
        content += [{"type": "text", "text": question}] if question else []
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        ids = model.generate(**inputs, max_new_tokens=16)[0, inputs["input_ids"].shape[1] :]
        said = processor.decode(ids, skip_special_tokens=True).strip()
        assert said
        assert said == answer(built, pictures, question, 16)


def built_of(stage: str, config: TrainConfig) -> StageModel:
    built = built_stage(stage, config)
    built.model.eval()
    return built


@pytest.mark.parametrize(
    ("stage", "how"),
    [
        ("instruct", {"words": {"template": LLAVA_TEMPLATE, "ends": True}, "llm": {"tie_word_embeddings": True}}),
        ("instruct", {"words": {"ends": True}, "llm": {"vocab_size": 512}, "connector_width": 20}),
        ("instruct", {"projector": "linear", "picture_layer": -2}),
        ("joint", {"llm": {"model_type": "qwen2"}}),
    ],
)
def test_an_open_clip_vit_answers_as_ours(stage: str, how: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(tmp_path, **how)
    built = built_of(
        stage, config.model_copy(update={"instruct": config.instruct.model_copy(update={"method": "full"})})
    )
    assert write_llava(built, tmp_path / "llava") < 1e-5
    same_answers(built, tmp_path / "llava")


def test_the_command_writes_it_beside_the_language_model_with_adapters_merged(tmp_path: Path) -> None:
    config = config_of(tmp_path, words={"template": CHATML, "special": ("<|im_start|>",)})
    place = checkpoint_of(tmp_path, "instruct", config)
    table = export(place, tmp_path / "out", llava=True)
    assert any(note.startswith("`llava`: `AutoModelForImageTextToText`") for note in table["notes"])
    assert (tmp_path / "out" / "llava" / "model.safetensors.sha256").is_file()
    same_answers(load_model(place)[0], tmp_path / "out" / "llava")


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, words={"template": LLAVA_TEMPLATE, "ends": True})
    full = config.instruct.model_copy(update={"method": "full"})
    built = built_of("instruct", config.model_copy(update={"instruct": full}))
    write_llava(built, tmp_path / "model" / "llava")
    (tmp_path / "cat.jpg").write_bytes(photo(3))
    page = Path(__file__).parents[3] / "docs" / "own-checkpoints.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "shown code", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(("kind", "layer"), [("clip", -2), ("clip", -1), ("siglip", -1), ("siglip", -2)])
def test_towers_of_transformers_answer_as_ours(kind: str, layer: int, tmp_path: Path) -> None:
    save_dual(kind, tmp_path / "base")
    encoder = {"kind": "hf", "model": str(tmp_path / "base")}
    built = built_of("joint", config_of(tmp_path, encoder=encoder, picture_layer=layer))
    assert write_llava(built, tmp_path / "llava") < 1e-5
    same_answers(built, tmp_path / "llava")


def test_two_encoders_of_transformers_may_have_such_a_tower(tmp_path: Path) -> None:
    encoder = {"kind": "hf", "config": HF["siglip"], "text_config": BERT, "tokenizer": "bytes", "embed_dim": 16}
    built = built_stage("joint", config_of(tmp_path, encoder=encoder))
    with pytest.raises(UserError, match=r"is normalised.* Remedy: train with model\.picture_layer = -2"):
        check_llava(built.generative()[0])
    built = built_of("joint", config_of(tmp_path, encoder=encoder, picture_layer=-2))
    write_llava(built, tmp_path / "llava")
    same_answers(built, tmp_path / "llava")


def test_the_exported_folder_is_a_start_and_a_start_can_be_exported(tmp_path: Path) -> None:
    save_llava(tmp_path / "first")
    built = built_stage(
        "instruct", settings(model={"llava": str(tmp_path / "first"), "llm": {}}, instruct={"method": "full"})
    )
    built.model.eval()
    write_llava(built, tmp_path / "second")
    same_answers(built, tmp_path / "second")
    again = build_model("instruct", settings(model={"llava": str(tmp_path / "second"), "llm": {}}))
    again.model.eval()
    assert answer(again, [photo(0)], QUESTION, 24) == answer(built, [photo(0)], QUESTION, 24)


def test_the_image_token_is_never_said(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    built = built_of("joint", config_of(tmp_path))
    write_llava(built, tmp_path / "llava")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava")
    head = model.get_output_embeddings().weight
    token = model.config.image_token_id
    assert token == len(head) - 1 == built.generative()[0].llm.config.vocab_size
    torch.testing.assert_close(head[token], head[:token].mean(0))
    logits = torch.randn(64, head.shape[1]) @ head.T
    assert (logits.argmax(1) != token).all()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"architecture": "cross_attention"}, "from outside the sequence.* model.architecture = single_tower"),
        ({"fusion": "late"}, "fusion `late`.* model.fusion = early"),
        ({"fusion": "attention"}, "fusion `attention`.* model.fusion = early"),
        ({"picture_features": "embedding"}, "one vector.* model.picture_features = map"),
        ({"projector": "norm_mlp"}, "a layer norm.* model.projector = mlp"),
        ({"connector_width": 48}, "48 wide.* model.connector_width = null"),
        ({"audio": {"kind": "logmel_vit", "seconds": 0.64, "config": SMALL}}, "a sound tower.*kind = none"),
        ({"llm": {"model_type": "phi"}}, "output head has a bias.* another model.llm"),
        ({"encoder": open_clip("timm").model_dump()}, "and no ViT as CLIP.*kind `hf`"),
        ({"encoder": {"kind": "hf", "config": HF["vit"], "text_config": BERT}}, "ViTModel, and no ViT as CLIP's"),
    ],
)
def test_what_llava_cannot_express_says_why_and_what_to_train(model: dict[str, Any], says: str, tmp_path: Path) -> None:
    built = build_model("joint", config_of(tmp_path, **model))
    with pytest.raises(UserError, match=f"export as LLaVA: .*{says}"):
        check_llava(built.generative()[0])


def test_a_sliding_window_is_not_llavas(tmp_path: Path) -> None:
    config = config_of(tmp_path).model_dump()
    config["model"]["llm"]["sliding_window"] = 8
    with pytest.raises(UserError, match=r"sliding window\. Remedy: train without model\.llm\.sliding_window"):
        check_llava(build_model("joint", TrainConfig.model_validate(config)).generative()[0])


def test_a_folder_that_would_answer_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = built_of("joint", config_of(tmp_path))
    narrower = llava._projector_state

    def silent(projector: Projector, dim: int) -> dict[str, torch.Tensor]:
        return {name: tensor * 0 for name, tensor in narrower(projector, dim).items()}

    monkeypatch.setattr(llava, "_projector_state", silent)
    with pytest.raises(UserError, match=r"other logits than LlamaForCausalLM .* Remedy: train another model\.llm"):
        write_llava(built, tmp_path / "llava")


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(tmp_path: Path) -> None:
    place = checkpoint_of(tmp_path, "instruct", settings(model={**settings().model.model_dump(), **MLP}))
    with pytest.raises(UserError, match=r"does not write the prompts .*ByT5Tokenizer.* Remedy: .*llm\.tokenizer"):
        export(place, tmp_path / "out", llava=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"stage `align` has none"):
        export(checkpoint_of(tmp_path, "align", settings()), tmp_path / "out", llava=True)
