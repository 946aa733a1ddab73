"""A trained model as a folder: a plain Hugging Face language model, and in `multimodal/` what sees and hears."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdata.errors import DataError, UserError
from mmdata.score.preprocess import Preprocess
from training.config import Audio, Encoder, TrainConfig
from training.data.text_codec import TextCodec, load_tokenizer
from training.model.encoders import DualEncoder
from training.model.fusion import FusedLayer, decoder_list
from training.model.multimodal_lm import MultimodalLm
from training.model.scorer_folder import open_clip_description
from training.model.towers import AudioTower, HfVision, OpenClipVision
from training.stages.pipeline import is_tied
from training.stages.stage_model import StageModel

FORMAT = 1
BESIDE = "multimodal"  # folder of what is not the language model
PARTS = {"encoder": ("vision.", "audio."), "connector": ("connector.", "hearing.", "placeholder")}
GATES = "gates"


@dataclass
class Exported(StageModel):
    """A model read from an exported folder, and the configuration that it was trained with."""

    config: TrainConfig = field(kw_only=True)


def write_model(built: StageModel, config: TrainConfig, about: Mapping[str, Any], folder: Path) -> None:
    """Write a generative stage's model: safetensors, JSON and the tokenizer's files; nothing that needs unpickling.

    The folder itself is the language model under the names of transformers. `multimodal/` holds `encoder`,
    `connector` and, in `cross_attention`, `gates` (keys: number of the LLM's layer, then the name), and `config.json`.

    Args:
        built: its adapters merged.
        about: step, release and the like, for whoever finds the folder.
    """
    from safetensors.torch import save_file

    model, codec = built.model, built.codec
    assert isinstance(model, MultimodalLm)
    assert codec is not None
    state, gates = plain_state(model.llm)
    with quiet():
        rebuilt(model.llm, model.llm.config, state).save_pretrained(folder)
    codec.tokenizer.save_pretrained(folder)
    beside = folder / BESIDE
    beside.mkdir(parents=True)
    tensors = model.state_dict()
    for part, prefixes in PARTS.items():
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
        save_file({name: _whole(tensor) for name, tensor in own.items()}, beside / f"{part}.safetensors")
    if gates:
        save_file({name: _whole(tensor) for name, tensor in gates.items()}, beside / f"{GATES}.safetensors")
    described = {
        "format": FORMAT,
        "stage": built.stage,
        **about,
        "vision": _vision_description(model, config.model.encoder),
        "audio": _audio_description(model.audio, config.model.audio),
        "tokenizer": type(codec.tokenizer).__name__,
        "config": config.model_dump(mode="json"),
    }
    (beside / "config.json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_exported(folder: Path) -> Exported:
    """Read a folder that `export` wrote, or one of the variants in it; on the CPU, in evaluation mode.

    It answers as the checkpoint did (`training.evaluate.answer`) and needs neither the checkpoint nor what it was
    trained from; the demo's packaged towers alone are built from their package.

    Raises:
        UserError: the folder holds no exported language model, or a package is missing.
        DataError: a file of it is broken or missing.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    place = folder / BESIDE / "config.json"
    if not place.is_file():
        raise UserError(
            f"{folder}: no exported language model there (no {BESIDE}/config.json). Remedy: `mmdata export CHECKPOINT "
            f"{folder}`; what stage `align` exports is opened by open_clip instead."
        )
    try:
        described = json.loads(place.read_text(encoding="utf-8"))
        if described["format"] != FORMAT:
            raise DataError(f"{place}: format {described['format']}; this mmdata reads format {FORMAT}")
        config = TrainConfig.model_validate(described["config"])
        vision = _vision(described["vision"])
        audio = described["audio"] and AudioTower(Audio(**described["audio"]["config"]), described["audio"]["dim"])
        stage, tokenizer = described["stage"], described["tokenizer"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: cannot be read ({_line(error)}). Remedy: export the checkpoint again.") from error
    options = {
        "attn_implementation": config.model.llm.attention,
        **{"local_files_only": True, "use_safetensors": True, "trust_remote_code": False},
    }
    try:
        with quiet():
            llm = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **options)
        codec = TextCodec(_tokenizer(folder, tokenizer))
    except ImportError as error:
        raise UserError(f"{folder}: {_line(error)}. Remedy: install mmdata[train].") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be loaded ({_line(error)}). Remedy: export again.") from error
    model = MultimodalLm(DualEncoder(vision, cast(Any, nn.Identity()), _no_text, audio), llm, config.model)
    for part, prefixes in PARTS.items():
        wanted = {name for name in model.state_dict() if name.startswith(prefixes)}
        model.load_state_dict(_tensors(folder / BESIDE / f"{part}.safetensors", wanted), strict=False)
    wanted = set(plain_state(llm)[1])
    if wanted:
        layers = decoder_list(llm)
        for name, tensor in _tensors(folder / BESIDE / f"{GATES}.safetensors", wanted).items():
            layer, _, rest = name.partition(".")
            cast(Any, layers[int(layer)]).cross.state_dict()[rest].copy_(tensor)
    model.eval()
    return Exported(stage, model, llm, codec, list(decoder_list(llm)), is_tied(llm), config=config)


def is_known_tokenizer(tokenizer: Any, folder: Path, texts: Sequence[str]) -> bool:
    """Whether `AutoTokenizer` makes of a folder the tokenizer that was written there: the same tokens of texts."""
    from transformers import AutoTokenizer

    try:
        told = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return False
    return all(told(text)["input_ids"] == tokenizer(text)["input_ids"] for text in texts)


def plain_state(llm: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A language model's tensors under the names of transformers, and its gates' under `<layer>.<name>`."""
    layers = decoder_list(llm)
    name = layers_name(llm)
    fused = {f"{name}.{at}." for at, layer in enumerate(layers) if isinstance(layer, FusedLayer)}
    plain, gates = {}, {}
    for key, tensor in llm.state_dict().items():
        at, _, rest = key.removeprefix(f"{name}.").partition(".")
        head, _, last = rest.partition(".")
        if f"{name}.{at}." not in fused or not key.startswith(f"{name}."):
            plain[key] = tensor
        elif head == "cross":
            gates[f"{at}.{last}"] = tensor
        else:
            plain[f"{name}.{at}.{last}"] = tensor
    return plain, gates


def layers_name(llm: nn.Module) -> str:
    """Where a language model keeps its blocks, such as `model.layers`."""
    layers = decoder_list(llm)
    return next(name for name, module in llm.named_modules() if module is layers)


def rebuilt(like: Any, config: Any, state: Mapping[str, Tensor]) -> Any:
    """A plain Hugging Face language model of a configuration and tensors, fp32, on the CPU.

    Args:
        like: the model that it comes from, whose generation settings it keeps.
    """
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):  # a GGUF file's: the tensors are whole numbers no more
        del config.quantization_config
    llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    llm.load_state_dict(state)
    llm.generation_config = like.generation_config
    return llm.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and what torchao's import makes torch warn of."""
    from transformers.utils import logging as told

    shown, pytree = told.is_progress_bar_enabled(), logging.getLogger("torch.utils._pytree")
    level = pytree.level
    told.disable_progress_bar()
    pytree.setLevel(logging.ERROR)
    try:
        yield
    finally:
        pytree.setLevel(level)
        if shown:
            told.enable_progress_bar()


def _vision_description(model: MultimodalLm, config: Encoder) -> dict[str, Any]:
    """What builds the image tower again, weights aside."""
    vision = model.vision
    preprocess = asdict(vision.preprocess)
    if isinstance(vision, HfVision):
        found: Any = vision.model.config
        return {"config": found.to_dict(), "dim": vision.proj.out_features, "preprocess": preprocess}
    if config.kind == "demo":
        return {"base": "demo", "preprocess": preprocess}
    built = open_clip_description(cast(DualEncoder, model), config)["model_cfg"]
    settings = {"embed_dim": built["embed_dim"], "quick_gelu": bool(built.get("quick_gelu"))}
    tower = {**built["vision_cfg"], "timm_model_pretrained": False}
    return {**settings, "vision_cfg": tower, "preprocess": preprocess}


def _vision(described: Mapping[str, Any]) -> OpenClipVision | HfVision:
    preprocess = Preprocess.from_open_clip(described["preprocess"])
    if "config" in described:
        from transformers import AutoConfig, AutoModel

        with quiet():
            tower = AutoModel.from_config(AutoConfig.for_model(**described["config"]))
        return HfVision(tower, described["dim"], preprocess)
    if described.get("base") == "demo":
        from mmdata.score.offline import build

        return OpenClipVision(build()[0].visual, preprocess)
    from open_clip.model import _build_vision_tower

    visual = _build_vision_tower(described["embed_dim"], described["vision_cfg"], described["quick_gelu"])
    return OpenClipVision(visual, preprocess)


def _audio_description(audio: AudioTower | None, config: Audio) -> dict[str, Any] | None:
    if audio is None:
        return None
    settings = config.config if config.kind == "logmel_vit" else audio.model.config.to_dict()
    whole = config.model_copy(update={"model": None, "config": settings})
    return {"config": whole.model_dump(mode="json"), "dim": audio.proj.out_features}


def _tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer of the class that was written: for some models transformers' own choice is another one."""
    import transformers

    kind: Any = getattr(transformers, name, None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedTokenizerBase):
        return cast(Any, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return load_tokenizer(str(folder))


def _tensors(path: Path, wanted: set[str]) -> dict[str, Tensor]:
    """A file's tensors. Raises DataError: it is broken, missing, or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({_line(error)}). Remedy: export the checkpoint again.") from None
    if different := sorted(wanted ^ set(found)):
        raise DataError(f"{path}: is of another model ({different[0]}). Remedy: export the checkpoint again.")
    return found


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()  # safetensors refuses memory that tensors share


def _no_text(_: list[str]) -> Tensor:
    raise TypeError("an exported language model has no text tower")


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
