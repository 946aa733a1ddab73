"""Find and load what `score.model` and `score.pretrained` name: towers, preprocessing, tokenizer."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.config import Score
from mmdata.config.scorers import SCHEMAS, resolved, scorer_name
from mmdata.errors import UserError
from mmdata.score.foreign import NOT_TENSORS, refuse_code
from mmdata.score.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class Loaded:
    """An open_clip dual encoder in evaluation mode, fp32, on the CPU."""

    name: str
    model: Any
    preprocess: Preprocess
    tokenizer: Callable[[list[str]], Any]


def check_names(score: Score) -> None:
    """Refuse a model or a tag that does not exist, before anything is loaded or downloaded.

    Raises:
        UserError: names what is nearest.
    """
    score = resolved(score)
    if score.model == "demo":
        return
    if score.model.startswith(SCHEMAS):
        _check_folder(score.model)
        return
    import open_clip

    models = open_clip.list_models()
    model = score.model.replace("/", "-")
    if model not in models:
        raise UserError(
            f"score.model: open_clip has no model {score.model!r}; nearest: {_nearest(model, models)}. "
            "`demo`, `hf-hub:<owner>/<name>` and `local-dir:<folder>` are taken too."
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if score.pretrained is None:
        raise UserError(
            f"score.pretrained: {score.model} without weights would score at random. Give a tag "
            f"({', '.join(tags) or 'open_clip lists none for it'}) or the path of a checkpoint."
        )
    if open_clip.is_pretrained_cfg(model, score.pretrained) or Path(score.pretrained).is_file():
        return
    others = sorted(name for name, tag in open_clip.list_pretrained() if tag == score.pretrained)
    hint = f" Models with this tag: {', '.join(others)}." if others else ""
    raise UserError(
        f"score.pretrained: {score.pretrained!r} is neither a file nor a tag of {score.model}; nearest tags: "
        f"{_nearest(score.pretrained, tags) if tags else 'none, open_clip lists no weights for it'}.{hint}"
    )


def load(score: Score) -> Loaded:
    """Load the scorer's model. Checkpoints are read as tensors only: a file that needs unpickling is refused.

    Raises:
        UserError: an unknown name, weights that cannot be fetched or read, or that do not fit the model.
    """
    score = resolved(score)
    name = scorer_name(score)
    if score.model == "demo":
        from mmdata.score.offline import build

        model, _, tokenizer = build()
    else:
        model, tokenizer = _load_open_clip(score, name)
    from open_clip.model import get_model_preprocess_cfg

    model.eval().requires_grad_(False)
    return Loaded(name, model, Preprocess.of(get_model_preprocess_cfg(model)), tokenizer)


def weights_digest(model: Any) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes: two checkpoints differ in it if they differ at all."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _load_open_clip(score: Score, name: str) -> tuple[Any, Any]:
    import open_clip

    if score.model.startswith("local-dir:") and (tuned := _tuned_demo(Path(score.model.partition(":")[2]))):
        return tuned
    has_schema = score.model.startswith(SCHEMAS)
    refuse_code()
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
    except NOT_TENSORS as error:
        raise UserError(
            f"score.pretrained: the weights of {score.pretrained or score.model} are no tensors, and nothing is "
            f"unpickled ({_first_line(error)}). "
            "Remedy: save its state dict alone, best as .safetensors."
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"score: the weights of {name} cannot be loaded: {_first_line(error)}. Remedy: check the network, or "
            "download them and give the file as `pretrained`; `model: demo` needs neither."
        ) from error


def _tuned_demo(folder: Path) -> tuple[Any, Any] | None:
    """The packaged towers with weights that `mmdata train` has tuned; None: the folder is open_clip's own kind."""
    if json.loads((folder / "open_clip_config.json").read_text()).get("base") != "demo":
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from mmdata.score.offline import build

    model, _, tokenizer = build()
    try:
        tensors = load_file(folder / "open_clip_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"score.model: {folder}: its weights cannot be read ({_first_line(error)})") from None
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any(name != "logit_bias" for name in missing):
        raise UserError(f"score.model: {folder} does not hold the demo towers: {(*missing, *unexpected)[:3]}")
    return model, tokenizer


def _needs_quick_gelu(score: Score) -> bool:
    """OpenAI's weights and a few others were trained with QuickGELU; open_clip only warns where the model lacks it."""
    import open_clip

    if score.model.startswith(SCHEMAS) or score.pretrained is None:
        return False
    model = score.model.replace("/", "-")
    tag = open_clip.get_pretrained_cfg(model, score.pretrained)
    wanted, has = bool(tag.get("quick_gelu")), bool((open_clip.get_model_config(model) or {}).get("quick_gelu"))
    if tag and has and not wanted:
        raise UserError(
            f"score: the weights {score.pretrained} were not trained with QuickGELU, which {score.model} has. "
            f"Remedy: model: {score.model.removesuffix('-quickgelu')}"
        )
    return wanted


def _check_folder(model: str) -> None:
    schema, _, place = model.partition(":")
    if not place:
        raise UserError(f"score.model: {model!r} names nothing after the colon")
    if schema == "local-dir" and not (Path(place) / "open_clip_config.json").is_file():
        raise UserError(
            f"score.model: {place} is no folder with an open_clip_config.json (a scorer, or a stage `align`)"
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.5)
    return ", ".join(lower[one] for one in found) or ", ".join(known[:8])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
