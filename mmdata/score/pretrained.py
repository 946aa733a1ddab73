"""Find and load the model that `score.model` and `score.pretrained` name: towers, preprocessing, tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.config import Score
from mmdata.config.scorer_names import Published, check_against
from mmdata.config.scorers import CONFIG_FILES, SCHEMAS, resolved, scorer_name
from mmdata.errors import UserError, first_line
from mmdata.score.hf_dual_encoder import is_dual_encoder_folder, load_dual_encoder
from mmdata.score.preprocess import Preprocess
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS, forbid_remote_code
from mmdata.storage.digests import changed_file


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A dual encoder in evaluation mode, float32, on the CPU; it has the methods of open_clip's."""

    name: str
    model: Any
    preprocess: Preprocess
    tokenizer: Callable[[list[str]], Any]


def check_names(score: Score) -> None:
    """Raise UserError for a model or a tag that does not exist, before anything is loaded or downloaded."""
    score = resolved(score)
    if score.model == "demo":
        return
    if score.model.startswith(SCHEMAS):
        _check_location(score.model)
        return
    import open_clip

    tags = {model: open_clip.list_pretrained_tags_by_model(model) for model in open_clip.list_models()}
    check_against(score, {model: dict.fromkeys(names, Published()) for model, names in tags.items()})


def load_model(score: Score) -> LoadedModel:
    """Load the scorer's model. Checkpoints are read as tensors only: a file that needs unpickling is refused.

    Raises:
        UserError: an unknown name, or weights that cannot be fetched, cannot be read, or do not fit the model.
    """
    score = resolved(score)
    name = scorer_name(score)
    folder = _local_folder(score)
    if folder is not None and is_dual_encoder_folder(folder):
        _check_unchanged(sorted(folder.glob("*.safetensors")))
        dual = load_dual_encoder(str(folder), "score.model")
        dual.model.requires_grad_(False)
        return LoadedModel(name, dual, dual.preprocess, dual.tokenize)
    if score.model == "demo":
        from mmdata.score.offline import build

        model, _, tokenizer = build()
    else:
        model, tokenizer = _load_open_clip(score, name)
    from open_clip.model import get_model_preprocess_cfg

    model.eval().requires_grad_(False)
    return LoadedModel(name, model, Preprocess.from_open_clip(get_model_preprocess_cfg(model)), tokenizer)


def weights_digest(model: Any) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes: checkpoints that differ at all have other digests."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _load_open_clip(score: Score, name: str) -> tuple[Any, Any]:
    """Model and tokenizer of open_clip's own kinds, or of the demo towers that `mmdata train` tuned."""
    import open_clip

    has_schema = score.model.startswith(SCHEMAS)
    if (folder := _local_folder(score)) is not None:
        _check_unchanged([folder / "open_clip_model.safetensors"])
        if tuned := _load_tuned_demo(folder):
            return tuned
    forbid_remote_code()
    try:
        model = open_clip.create_model(
            score.model,
            None if has_schema else score.pretrained,
            force_quick_gelu=_needs_quick_gelu(score),
            pretrained_text=False,
            require_pretrained=True,
            weights_only=True,
        )
        return model, open_clip.get_tokenizer(score.model)
    except UNSAFE_WEIGHTS_ERRORS as error:
        raise UserError(
            f"score.pretrained: the weights of {score.pretrained or score.model} hold more than tensors, and pickled "
            f"objects are never loaded ({first_line(error)}). Remedy: save only the state dict, best as .safetensors."
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"score: the weights of {name} cannot be loaded: {first_line(error)}. Remedy: check the network, or "
            "download the weights and give the file as `pretrained`; `model: demo` needs neither."
        ) from error


def _local_folder(score: Score) -> Path | None:
    schema, _, place = score.model.partition(":")
    return Path(place) if schema == "local-dir" else None


def _check_unchanged(files: list[Path]) -> None:
    if problem := changed_file(files):
        raise UserError(f"score.model: {problem}. Remedy: restore it from a copy, or train it again.")


def _load_tuned_demo(folder: Path) -> tuple[Any, Any] | None:
    """The packaged demo towers with weights tuned by `mmdata train`; None: the folder is of open_clip's own kind."""
    if json.loads((folder / "open_clip_config.json").read_text()).get("base") != "demo":
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from mmdata.score.offline import build

    model, _, tokenizer = build()
    try:
        tensors = load_file(folder / "open_clip_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"score.model: {folder}: its weights cannot be read ({first_line(error)}). Remedy: train it again."
        ) from None
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any(name != "logit_bias" for name in missing):
        raise UserError(
            f"score.model: {folder} does not hold the demo towers: tensors {(*missing, *unexpected)[:3]} are missing "
            "or unexpected. Remedy: train it again."
        )
    return model, tokenizer


def _needs_quick_gelu(score: Score) -> bool:
    """Whether the weights were trained with QuickGELU, as OpenAI's were; open_clip only warns of a wrong choice."""
    import open_clip

    if score.model.startswith(SCHEMAS) or score.pretrained is None:
        return False
    model = score.model.replace("/", "-")
    tag = open_clip.get_pretrained_cfg(model, score.pretrained)
    trained_with = bool(tag.get("quick_gelu"))
    model_has = bool((open_clip.get_model_config(model) or {}).get("quick_gelu"))
    if tag and model_has and not trained_with:
        raise UserError(
            f"score: the weights {score.pretrained} were not trained with QuickGELU, which {score.model} has. "
            f"Remedy: model: {score.model.removesuffix('-quickgelu')}"
        )
    return trained_with


def _check_location(model: str) -> None:
    schema, _, location = model.partition(":")
    if not location:
        raise UserError(f"score.model: {model!r} names nothing after the colon. Remedy: give a name or a folder there.")
    if schema == "local-dir" and not any((Path(location) / name).is_file() for name in CONFIG_FILES):
        raise UserError(
            f"score.model: {location} is not a folder with an open_clip_config.json, nor one with a config.json. "
            "Remedy: give the folder of a scorer, of a training stage `align`, or of a CLIP or SigLIP model."
        )
