"""Writes the towers of stage 1 to a folder that mmdata can score with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from upath import UPath

from mmdata.errors import UserError
from mmdata.storage.atomic import publish_bytes
from training.config import Encoder
from training.model.encoders import DualEncoder, open_clip_settings


def save_scorer(encoder: DualEncoder, config: Encoder, folder: Path) -> None:
    """Write the image and text towers as a scorer for the next refresh: `score: {model: <folder>}`.

    `open_clip.create_model("local-dir:…")` opens the folder of open_clip towers. mmdata opens that of the demo's
    packaged towers.

    Raises UserError: the towers are Hugging Face encoders, which open_clip cannot open.
    """
    from safetensors.torch import save_file

    if config.kind == "hf":
        raise UserError("towers of kind `hf` cannot be a scorer: open_clip cannot open them. Remedy: kind `open_clip`.")
    folder.mkdir(parents=True, exist_ok=True)
    state = {**encoder.vision.state_dict(), **encoder.text.state_dict(), "logit_scale": encoder.logit_scale.reshape(())}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
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
