"""The towers of stage 1 as the scorer of the next refresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from training.config import Encoder
from training.model.encoders import DualEncoder, open_clip_settings


def save_scorer(encoder: DualEncoder, config: Encoder, folder: Path) -> None:
    """Write the pair of towers as the scorer of the next refresh: `score: {model: <folder>}`.

    open_clip towers become a folder that `open_clip.create_model("local-dir:…")` opens; the demo's packaged towers a
    folder that mmdata opens.

    Raises:
        UserError: the towers are Hugging Face encoders, which open_clip cannot open.
    """
    import json

    from safetensors.torch import save_file

    if config.kind == "hf":
        raise UserError("towers of kind `hf` cannot be a scorer: open_clip cannot open them")
    folder.mkdir(parents=True, exist_ok=True)
    state = {**encoder.vision.state_dict(), **encoder.text.state_dict(), "logit_scale": encoder.logit_scale.reshape(())}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    described = {"base": "demo"} if config.kind == "demo" else open_clip_description(encoder, config)
    draft = folder / ".tmp-open_clip_config.json"
    draft.write_text(json.dumps(described, indent=1))
    draft.replace(folder / "open_clip_config.json")


def open_clip_description(encoder: DualEncoder, config: Encoder) -> dict[str, Any]:
    import open_clip

    if config.config is not None:
        model = open_clip_settings(config.config)
    elif config.model.startswith("local-dir:"):
        import json

        place = Path(config.model.partition(":")[2]) / "open_clip_config.json"
        model = json.loads(place.read_text())["model_cfg"]
    else:
        model = open_clip.get_model_config(config.model)
    preprocess = encoder.vision.preprocess.as_dict()
    return {"model_cfg": {**model, "custom_text": True}, "preprocess_cfg": {**preprocess, "mode": "RGB"}}
