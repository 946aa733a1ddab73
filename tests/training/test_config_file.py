"""Settings are read from presets, files and `--set`, in this order."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import UserError
from training.config import STAGES, TrainConfig
from training.config_file import PRESETS, load_train_config
from training.model.fusion import fusion_plan


def test_all_presets_load() -> None:
    assert {"tiny", "demo", "smollm2", "b16-360m", "b16-0.5b", "b32-0.5b", "l14-1b", "l14-7b"} == set(PRESETS)
    for preset in PRESETS:
        config = load_train_config(preset)
        assert config != TrainConfig()
        assert [len(getattr(config, stage).model_dump()) > 10 for stage in STAGES] == [True] * 3
        assert fusion_plan(config.model.architecture, config.model.fusion, 24)
        for stage in STAGES:
            settings = getattr(config, stage)
            assert settings.warmup_steps < settings.steps
            assert settings.micro_batch is None or settings.micro_batch <= settings.batch_size
        for stage in (config.joint, config.instruct):
            assert stage.max_text_tokens <= stage.pack_length


def test_every_preset_that_is_shipped_is_listed() -> None:
    names = {path.name.removesuffix(".toml") for path in (resources.files("training") / "presets").iterdir()}
    assert {name for name in names if not name.startswith("_")} == set(PRESETS)


def test_a_file_stands_over_its_preset_and_set_over_both(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text('preset = "tiny"\nseed = 7\n[align]\nlr = 0.5\nsteps = 3\n')
    tiny, config = load_train_config("tiny"), load_train_config(path=path, overrides=["align.steps=9"])
    assert (config.seed, config.align.lr, config.align.steps) == (7, 0.5, 9)
    assert config.align.batch_size == tiny.align.batch_size != TrainConfig().align.batch_size
    assert config.model == tiny.model
    other = load_train_config("smollm2", path)
    assert other.model.llm.model == "smollm2", "a preset that is asked for stands before the file's"
    assert other.seed == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=3", 3),
        ("align.lr=1e-4", 1e-4),
        ("align.lr=1", 1.0),
        ("align.freeze_image=true", True),
        ("align.freeze_image=False", False),
        ("align.micro_batch=null", None),
        ("align.micro_batch = 4", 4),
        ('instruct.tasks=["caption", "match"]', ["caption", "match"]),
        ("instruct.tasks=none", None),
        ("model.encoder.model=ViT-B-32", "ViT-B-32"),
        ("model.encoder.pretrained=laion2b_s34b_b79k", "laion2b_s34b_b79k"),
        ('model.encoder.pretrained="1"', "1"),
        ("model.llm.model=/models/a b=c#d", "/models/a b=c#d"),
        ("log.wandb=", ""),
        ("align.weights.audio=0.25", 0.25),
        ("instruct.lora.r=2", 2),
        ("instruct.lora.targets=all-linear", "all-linear"),
        ("parallel.strategy=fsdp2", "fsdp2"),
    ],
)
def test_set_reads_a_value_as_what_it_is(text: str, expected: Any) -> None:
    config: Any = load_train_config(overrides=[text])
    found = config
    for key in text.partition("=")[0].strip().split("."):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == expected
    assert type(found) is type(expected)


def test_set_changes_one_key_of_a_models_table_and_keeps_the_others() -> None:
    tiny = load_train_config("tiny")
    overrides = ["model.llm.config.num_hidden_layers=2", "model.encoder.config.vision_cfg.layers=1"]
    config = load_train_config("tiny", overrides=overrides)
    assert config.model.llm.config == {**tiny.model.llm.config, "num_hidden_layers": 2}
    assert tiny.model.encoder.config is not None
    assert config.model.encoder.config is not None
    assert config.model.encoder.config["vision_cfg"] == {**tiny.model.encoder.config["vision_cfg"], "layers": 1}
    assert config.model.encoder.config["text_cfg"] == tiny.model.encoder.config["text_cfg"]
    built = load_train_config(overrides=["model.llm.config.model_type=llama", "model.llm.config.hidden_size=8"])
    assert built.model.llm.config == {"model_type": "llama", "hidden_size": 8}
    assert load_train_config("tiny", overrides=["model.encoder.config=null"]).model.encoder.config is None


def test_a_models_table_in_a_file_replaces_the_presets(tmp_path: Path) -> None:
    """Its keys belong together: a GPT-2 with some of a Llama's settings would be neither."""
    path = tmp_path / "train.toml"
    path.write_text('[model.llm.config]\nmodel_type = "gpt2"\nn_embd = 8\n[align.weights]\naudio = 2.0\n')
    config = load_train_config("tiny", path)
    assert config.model.llm.config == {"model_type": "gpt2", "n_embd": 8}
    assert config.model.llm.tokenizer == "bytes"
    inline = load_train_config("tiny", overrides=['model.llm.config={model_type="gpt2", n_embd=8}', "align={steps=5}"])
    assert inline.model.llm.config == config.model.llm.config
    assert inline.align.steps == 5
    assert inline.align.batch_size == load_train_config("tiny").align.batch_size


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("align.learning_rate=1", r"unknown key `align\.learning_rate`: did you mean `\w+`\? Known here: .*\blr\b"),
        ("align.step=1", r"unknown key `align\.step`: did you mean `steps`"),
        ("jiont.steps=1", r"unknown key `jiont`: did you mean `joint`"),
        ("model.lm.model=a", r"unknown key `model\.lm`: did you mean `llm`"),
        ("instruct.lora.rr=1", r"unknown key `instruct\.lora\.rr`: did you mean `r`"),
        ("align.steps=0", r"`align\.steps`: .*greater than or equal to 1, not 0"),
        ("align.loss=clip", r"loss: \['clip'\] not known; the losses are infonce, siglip, triplet, bce"),
        ("align.loss={triplet=1.0, clip=1.0}", r"loss: \['clip'\] not known"),
        ("align.loss={triplet=-1.0}", "loss: no weight may be negative"),
        ("align.loss={triplet=0.0}", "loss: no weight may be negative, and one must be above 0"),
        ("align.freeze_image=maybe", r"`align\.freeze_image`: .*boolean"),
        ("align.weights.images=1", r"\['images'\] not known; the pairings are image, video, audio"),
        ("align.weights={image=0.0}", "none may be negative, and one must be above 0"),
        ("align.weights.image=-1", "none may be negative"),
        ("align.weights={}", "one must be above 0"),
        ("align.gather_with_grad=false", "local_loss without gather_with_grad has a wrong gradient"),
        ("model.audio.mel_bins=70", r"`model\.audio\.mel_bins`: .*multiple of 16"),
        ("model.audio.mel_bins=8", r"`model\.audio\.mel_bins`"),
        ("model.audio.seconds=0.05", r"`model\.audio\.seconds`"),
        ("seed", "expected key=value"),
        ("=1", "expected key=value"),
        ("seed.x=1", r"`seed`: .*integer"),
    ],
)
def test_a_mistake_names_the_key(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_train_config(overrides=[override])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = ")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"seed = '\xff'")
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("[align]\nstep = 1\n")
    for path, says in (
        (tmp_path / "none.toml", "no such file"),
        (tmp_path, "cannot be read"),
        (broken, "not valid TOML"),
        (latin, "not valid TOML"),
        (unknown, "unknown key `align.step`: did you mean `steps`"),
    ):
        with pytest.raises(UserError, match=says) as told:
            load_train_config(path=path)
        assert str(path) in str(told.value)


def test_an_unknown_preset_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preset 'tny'; the presets are tiny, demo, smollm2"):
        load_train_config("tny")
    path = tmp_path / "train.toml"
    path.write_text("preset = 3")
    with pytest.raises(UserError, match="no preset 3"):
        load_train_config(path=path)


@pytest.mark.parametrize("preset", ["b16-360m", "b16-0.5b"])
def test_the_presets_that_the_docs_say_export_as_llava_have_its_form(preset: str) -> None:
    model = load_train_config(preset).model
    assert (model.architecture, model.fusion, model.picture_features) == ("single_tower", "early", "map")
    assert (model.projector, model.connector_width, model.audio.kind) == ("mlp", None, "none")
    assert (model.encoder.kind, model.encoder.text_model, model.encoder.config) == ("hf", None, None)
