"""Writes and reads exported models: a plain Hugging Face language model, and the rest in `multimodal/`."""

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
from mmdata.storage.digests import changed_file
from training.config import TrainConfig
from training.data.text_codec import TextCodec, load_tokenizer
from training.model.encoders import DualEncoder, pictures_only
from training.model.fusion import FusedLayer, decoder_list
from training.model.hf_dual_towers import HfDualVision
from training.model.llm import is_tied
from training.model.multimodal_lm import MultimodalLm
from training.model.scorer_folder import open_clip_description
from training.model.towers import AudioTower, HfVision, OpenClipVision
from training.model_config import Audio, Encoder
from training.stages.stage_model import StageModel

FORMAT = 1
MEDIA_FOLDER = "multimodal"  # encoders and connector: all but the language model
PART_PREFIXES = {"encoder": ("vision.", "audio."), "connector": ("connector.", "hearing.", "placeholder")}
GATES = "gates"


@dataclass
class Exported(StageModel):
    """A model read from an exported folder, and the configuration that it was trained with."""

    config: TrainConfig = field(kw_only=True)


def write_model(built: StageModel, config: TrainConfig, origin: Mapping[str, Any], folder: Path) -> None:
    """Write a generative model as safetensors, JSON and the tokenizer's files. No file needs unpickling.

    The folder itself is the language model under the names of transformers. `multimodal/` holds `config.json` and, as
    safetensors, `encoder`, `connector` and, if the architecture is `cross_attention`, `gates`, whose keys begin with
    the number of the LLM's layer.

    Args:
        built: with its adapters merged.
        origin: the step, the release and so on, for the reader of `config.json`.
    """
    from safetensors.torch import save_file

    model, codec = built.generative()
    state, gates = plain_state(model.llm)
    with quiet():
        build_plain(model.llm, model.llm.config, state).save_pretrained(folder)
    codec.tokenizer.save_pretrained(folder)
    media_folder = folder / MEDIA_FOLDER
    media_folder.mkdir(parents=True)
    tensors = model.state_dict()
    for part, prefixes in PART_PREFIXES.items():
        part_tensors = {name: _copied(tensor) for name, tensor in tensors.items() if name.startswith(prefixes)}
        save_file(part_tensors, media_folder / f"{part}.safetensors")
    if gates:
        save_file({name: _copied(tensor) for name, tensor in gates.items()}, media_folder / f"{GATES}.safetensors")
    description = {
        "format": FORMAT,
        "stage": built.stage,
        **origin,
        "vision": _vision_description(model, config.model.encoder),
        "audio": _audio_description(model.audio, config.model.audio),
        "tokenizer": type(codec.tokenizer).__name__,
        "config": config.model_copy(update={"model": model.settings}).model_dump(mode="json"),
    }
    (media_folder / "config.json").write_text(
        json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def load_exported(folder: Path) -> Exported:
    """Read a folder that `export` wrote, or one of its variants, on the CPU and in evaluation mode.

    The model answers as its checkpoint did (`training.evaluate.answer`), and needs neither the checkpoint nor the
    models that training began from. Only the demo's towers are built from their package.

    Raises UserError: the folder has no exported language model, or a package is missing.
    Raises DataError: one of its files is broken or missing.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if problem := changed_file([*folder.glob("*.safetensors"), *(folder / MEDIA_FOLDER).glob("*.safetensors")]):
        raise DataError(f"{problem}. Remedy: export the checkpoint again.")
    path = folder / MEDIA_FOLDER / "config.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: no exported language model there (no {MEDIA_FOLDER}/config.json). "
            f"Remedy: `mmdata export CHECKPOINT {folder}`. (An export of stage `align` is opened by open_clip instead.)"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise DataError(f"{path}: format {description['format']}; this mmdata reads format {FORMAT}")
        config = TrainConfig.model_validate(description["config"])
        vision = _build_vision(description["vision"])
        heard = description["audio"]
        audio = None if heard is None else AudioTower(Audio(**heard["config"]), heard["dim"])
        stage, tokenizer = description["stage"], description["tokenizer"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({_first_line(error)}). Remedy: export the checkpoint again."
        ) from error
    options = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        with quiet():
            llm = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **options)
        codec = TextCodec(_tokenizer(folder, tokenizer))
    except ImportError as error:
        raise UserError(f"{folder}: {_first_line(error)}. Remedy: install mmdata[train].") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be loaded ({_first_line(error)}). Remedy: export again.") from error
    model = MultimodalLm(pictures_only(vision, audio), llm, config.model)
    for part, prefixes in PART_PREFIXES.items():
        wanted = {name for name in model.state_dict() if name.startswith(prefixes)}
        model.load_state_dict(_read_tensors(folder / MEDIA_FOLDER / f"{part}.safetensors", wanted), strict=False)
    if gate_names := set(plain_state(llm)[1]):
        layers = decoder_list(llm)
        for name, tensor in _read_tensors(folder / MEDIA_FOLDER / f"{GATES}.safetensors", gate_names).items():
            layer, _, gate_name = name.partition(".")
            cast(Any, layers[int(layer)]).cross.state_dict()[gate_name].copy_(tensor)
    model.eval()
    return Exported(stage, model, llm, codec, list(decoder_list(llm)), is_tied(llm), config=config)


def is_auto_tokenizer_right(tokenizer: Any, folder: Path, texts: Sequence[str]) -> bool:
    """Whether `AutoTokenizer` reads a folder's tokenizer so that it splits texts as the written one does."""
    from transformers import AutoTokenizer

    try:
        read = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return False
    return all(read(text)["input_ids"] == tokenizer(text)["input_ids"] for text in texts)


def plain_state(llm: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a language model's tensors: those under the names of transformers, and the gates' as `<layer>.<name>`."""
    layers = decoder_list(llm)
    prefix = f"{layers_name(llm)}."
    fused_layers = {str(number) for number, layer in enumerate(layers) if isinstance(layer, FusedLayer)}
    plain, gates = {}, {}
    for key, tensor in llm.state_dict().items():
        number, _, name_in_layer = key.removeprefix(prefix).partition(".")
        # a fused layer holds its gates as `cross`, and wraps transformers' layer under another name
        child, _, name_in_child = name_in_layer.partition(".")
        if not key.startswith(prefix) or number not in fused_layers:
            plain[key] = tensor
        elif child == "cross":
            gates[f"{number}.{name_in_child}"] = tensor
        else:
            plain[f"{prefix}{number}.{name_in_child}"] = tensor
    return plain, gates


def layers_name(llm: nn.Module) -> str:
    """The name of a language model's list of layers, such as `model.layers`."""
    layers = decoder_list(llm)
    return next(name for name, module in llm.named_modules() if module is layers)


def build_plain(source: Any, config: Any, state: Mapping[str, Tensor]) -> Any:
    """Build a plain Hugging Face language model from a configuration and tensors, in fp32 on the CPU.

    Args: source: the model whose generation settings it keeps.
    """
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):  # from a GGUF file; the tensors are no longer quantised
        del config.quantization_config
    llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    llm.load_state_dict(state)
    llm.generation_config = source.generation_config
    return llm.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars, and a warning of torch that importing torchao causes."""
    from transformers.utils import logging as transformers_logging

    had_bars, torch_logger = transformers_logging.is_progress_bar_enabled(), logging.getLogger("torch.utils._pytree")
    level = torch_logger.level
    transformers_logging.disable_progress_bar()
    torch_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        torch_logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


def _vision_description(model: MultimodalLm, config: Encoder) -> dict[str, Any]:
    """The settings that `_build_vision` needs; they hold no weights."""
    vision = model.vision
    preprocess = asdict(vision.preprocess)
    if isinstance(vision, HfDualVision):
        dim = None if vision.projection is None else vision.projection.out_features
        return {"config": vision.model.config.to_dict(), "dual": True, "dim": dim, "preprocess": preprocess}
    if isinstance(vision, HfVision):
        hf_config: Any = vision.model.config
        return {"config": hf_config.to_dict(), "dim": vision.proj.out_features, "preprocess": preprocess}
    if config.kind == "demo":
        return {"base": "demo", "preprocess": preprocess}
    clip_config = open_clip_description(cast(DualEncoder, model), config)["model_cfg"]
    settings = {"embed_dim": clip_config["embed_dim"], "quick_gelu": bool(clip_config.get("quick_gelu"))}
    tower = {**clip_config["vision_cfg"], "timm_model_pretrained": False}
    return {**settings, "vision_cfg": tower, "preprocess": preprocess}


def _build_vision(description: Mapping[str, Any]) -> OpenClipVision | HfVision | HfDualVision:
    preprocess = Preprocess.from_open_clip(description["preprocess"])
    if "config" in description:
        from transformers import AutoConfig, AutoModel

        with quiet():
            tower = AutoModel.from_config(AutoConfig.for_model(**description["config"]))
        if description.get("dual"):
            dim = description["dim"]
            projection = None if dim is None else nn.Linear(tower.config.hidden_size, dim, bias=False)
            return HfDualVision(tower, projection, preprocess)
        return HfVision(tower, description["dim"], preprocess)
    if description.get("base") == "demo":
        from mmdata.score.offline import build

        return OpenClipVision(build()[0].visual, preprocess)
    from open_clip.model import _build_vision_tower

    visual = _build_vision_tower(description["embed_dim"], description["vision_cfg"], description["quick_gelu"])
    return OpenClipVision(visual, preprocess)


def _audio_description(audio: AudioTower | None, config: Audio) -> dict[str, Any] | None:
    if audio is None:
        return None
    settings = config.config if config.kind == "logmel_vit" else audio.model.config.to_dict()
    described = config.model_copy(update={"model": None, "config": settings})
    return {"config": described.model_dump(mode="json"), "dim": audio.proj.out_features}


def _tokenizer(folder: Path, name: str) -> Any:
    """Read a tokenizer by the name of its class. transformers chooses another class for some models."""
    import transformers

    named: Any = getattr(transformers, name, None)
    if isinstance(named, type) and issubclass(named, transformers.PreTrainedTokenizerBase):
        return cast(Any, named).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return load_tokenizer(str(folder))


def _read_tensors(path: Path, wanted: set[str]) -> dict[str, Tensor]:
    """Read a file's tensors. Raises DataError if it is broken, missing, or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: cannot be read ({_first_line(error)}). Remedy: export the checkpoint again."
        ) from None
    if different := sorted(wanted ^ set(tensors)):
        raise DataError(f"{path}: is of another model (it differs in {different[0]}). Remedy: export it again.")
    return tensors


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()  # safetensors rejects tensors that share memory


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
