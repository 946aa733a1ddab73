"""Writes aligned towers as a folder that mmdata scores with, and that open_clip or transformers opens."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from upath import UPath

from mmdata.errors import UserError
from mmdata.storage.atomic import publish_bytes
from mmdata.storage.digests import write_digests
from training.model.encoders import DualEncoder, is_hf_dual, open_clip_settings
from training.model.hf_dual_towers import HfDualText, HfDualVision, save_dual
from training.model_config import Encoder


def can_be_scorer(config: Encoder) -> bool:
    """Whether `save_scorer` can write the towers."""
    return config.kind != "hf" or is_hf_dual(config)


def save_scorer(encoder: DualEncoder, config: Encoder, folder: Path) -> None:
    """Write the image and text towers as a scorer for the next refresh: `score: {model: <folder>}`.

    `open_clip.create_model("local-dir:…")` opens the folder of open_clip towers, and transformers' `AutoModel` that of
    a CLIP or SigLIP model of its own. mmdata opens both, and that of the demo's packaged towers.

    Raises UserError: the towers are two Hugging Face encoders that are no CLIP or SigLIP together.
    """
    from safetensors.torch import save_file

    if isinstance(encoder.vision, HfDualVision) and isinstance(encoder.text, HfDualText):
        scalars = {"logit_scale": encoder.logit_scale, "logit_bias": encoder.logit_bias}
        save_dual(config.model, encoder.vision, encoder.text, scalars, folder)
        return
    if not can_be_scorer(config):
        raise UserError(
            "an image and a text encoder of Hugging Face that are no CLIP or SigLIP together cannot be a scorer: no "
            "library opens the pair. Remedy: kind `open_clip`, or a CLIP or SigLIP folder as model.encoder.model."
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = {**encoder.vision.state_dict(), **encoder.text.state_dict(), "logit_scale": encoder.logit_scale.reshape(())}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    write_digests([folder / "open_clip_model.safetensors"])
    described = {"base": "demo"} if config.kind == "demo" else open_clip_description(encoder, config)
    publish_bytes(UPath(folder / "open_clip_config.json"), json.dumps(described, indent=1).encode())


def open_clip_description(encoder: DualEncoder, config: Encoder) -> dict[str, Any]:
    """What open_clip_config.json holds: the model's settings and its preprocessing."""
    import open_clip

    if config.config is not None:
        model = open_clip_settings(config.config)
    elif config.model.startswith("local-dir:"):
        path = Path(config.model.partition(":")[2]) / "open_clip_config.json"
        model = json.loads(path.read_text())["model_cfg"]
    else:
        model = open_clip.get_model_config(config.model)
    preprocess = asdict(encoder.vision.preprocess)
    return {"model_cfg": {**model, "custom_text": True}, "preprocess_cfg": {**preprocess, "mode": "RGB"}}
