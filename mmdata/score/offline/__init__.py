"""The small offline scorer: a real open_clip dual encoder that needs no download. It is not CLIP, and scores lower.

Both towers' weights ship in registry packages (EfficientNet-Lite0 and all-MiniLM-L6-v2); the projections that bring
them into one space are trained by `mmdata.demo.scorer.projection` and lie beside this file. docs/offline-scorer.md
says on what they were trained and what they reach.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from mmdata.media.packaged_file import check_sha256
from mmdata.score.offline.heads import image_head, text_head
from mmdata.score.offline.packaged import REMEDY, fit_by_order, read_image_weights, read_text_weights, text_folder

NAME = "demo (small offline scorer)"
IMAGE_SIZE = 224
CONTEXT_LENGTH = 64  # tokens of a caption that are read
PIXEL_MEAN = PIXEL_STD = (0.5, 0.5, 0.5)  # EfficientNet-Lite's own
PROJECTIONS = Path(__file__).with_name("projections.safetensors")
PROJECTIONS_SHA256 = "81af36bbf8533cd68c6c050347f78f2d7d56a4aa10647ab45bd55b62ca6c674f"


def build(projections: Path | None = None) -> tuple[Any, Any, Any]:
    """The model, its preprocessing and its tokenizer, as `open_clip.create_model_and_transforms` would give them.

    Never touches the network. The model is on the CPU, in eval mode and fp32; `encode_image` takes what the
    preprocessing gives, (N, 3, 224, 224) float32, `encode_text` what the tokenizer gives, (N, 64) int64; both
    give (N, dim), unit length with `normalize=True`.

    Args:
        projections: other trained projections than the shipped ones (not checked against the pinned sha256).

    Raises:
        UserError: a packaged or shipped weight file is absent or not the pinned one; names the file and the remedy.
    """
    if projections is None:
        projections = PROJECTIONS
        check_sha256(projections, PROJECTIONS_SHA256, REMEDY)
    state, _ = read_projections(projections)
    dim = state["visual.head.features.weight"].shape[0]
    folder = text_folder()
    model = assemble(dim, folder)
    _, unexpected = model.load_state_dict(state, strict=False)
    absent = {name for name in _projection_names(model) if name not in state}
    if unexpected or absent:
        raise UserError(f"{projections}: not projections of this model: {sorted(absent | set(unexpected))}")
    return model.eval(), preprocess(), tokenizer(folder)


def assemble(dim: int, folder: Path) -> Any:
    """The open_clip model with the packaged towers and untrained projections into `dim` dimensions.

    Args:
        folder: the packaged MiniLM's, checked (`text_folder`).
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from open_clip import CustomTextCLIP
    from open_clip.model import set_model_preprocess_cfg

    weights = read_image_weights()
    model = CustomTextCLIP(
        embed_dim=dim,
        # The packaged weights see best with TensorFlow's `same` padding and batch-norm epsilon: the tf_ variant's.
        vision_cfg={"timm_model_name": "tf_efficientnet_lite0", "timm_proj": "none", "image_size": IMAGE_SIZE},
        text_cfg={
            "hf_model_name": str(folder),
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
            "context_length": CONTEXT_LENGTH,
        },
    )
    model.text.transformer.load_state_dict(read_text_weights(folder), strict=True)
    model.visual.trunk.load_state_dict(fit_by_order(model.visual.trunk.state_dict(), weights), strict=True)
    model.visual.head = image_head(weights["_fc.weight"], weights["_fc.bias"], dim)
    model.text.proj = text_head(dim)
    model.text.output_dim = dim
    model.context_length = model.text.context_length = CONTEXT_LENGTH
    set_model_preprocess_cfg(model, _pixel_settings())
    return model


def preprocess() -> Any:
    """PIL image -> float32 (3, 224, 224): both sides resized, nothing cropped away, as the projections were trained."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**_pixel_settings()), is_train=False)


def tokenizer(folder: Path) -> Any:
    """Texts -> int64 (N, 64), MiniLM's word pieces, padded with 0."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from open_clip.tokenizer import HFTokenizer

    return HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)


def read_projections(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trained tensors, as float32 under the model's names, and what the file says of its training."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
            notes = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from None
    return state, json.loads(notes.get("training", "{}"))


def _pixel_settings() -> dict[str, Any]:
    return {
        "size": (IMAGE_SIZE, IMAGE_SIZE),
        "mode": "RGB",
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 255,
    }


def _projection_names(model: Any) -> list[str]:
    learned = [name for name, _ in model.named_parameters() if name.startswith(("visual.head.", "text.proj."))]
    return [*learned, "visual.head.temperature"]
