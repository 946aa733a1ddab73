"""InceptionV3 from a file of weights, for the FID and the Inception score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError, first_line
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS

SIZE_PX = 299
FEATURES = 2048
FID_CLASSES = 1008  # of the network that papers report FID with; torchvision's has 1000
_REMEDY = (
    "Remedy: pt_inception-2015-12-05-6726825d.pth (the network of published FIDs, as pytorch-fid and torch-fidelity "
    "use it) or torchvision's inception_v3_google-0cc3c7bd.pth."
)


class InceptionFeatures(nn.Module):
    """Pictures uint8 N,3,H,W -> the 2048 features before the last layer, N,2048."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        scaled = F.interpolate(pictures_NCHW.float() / 255, (SIZE_PX, SIZE_PX), mode="bilinear", align_corners=False)
        return self.network(scaled * 2 - 1)


class InceptionLogits(nn.Module):
    """Pictures uint8 N,3,H,W -> logits N,K. Args: features: what the last layer reads."""

    def __init__(self, features: InceptionFeatures, last: nn.Linear) -> None:
        super().__init__()
        self.features, self.last = features, last

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        return self.last(self.features(pictures_NCHW))


class PooledApart(nn.Module):
    """A block of InceptionV3 whose pooled branch pools as in the network of published FIDs.

    torchvision's average counts the padding as zeros; there it does not, and the last block takes the maximum.
    """

    def __init__(self, block: Any, takes_maximum: bool) -> None:
        super().__init__()
        self.block, self.takes_maximum = block, takes_maximum

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        branches = self.block._forward(maps_NCHW)[:-1]
        if self.takes_maximum:
            pooled = F.max_pool2d(maps_NCHW, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(maps_NCHW, 3, 1, 1, count_include_pad=False)
        return torch.cat([*branches, self.block.branch_pool(pooled)], 1)


def load_inception(path: Path) -> tuple[InceptionFeatures, InceptionLogits]:
    """The extractor of the FID and the classifier of the Inception score, on the CPU, from one file of weights.

    Weights of 1008 classes make the network of published FIDs (Heusel et al. 2017, ported by pytorch-fid), whose logits
    have no bias, as in torch-fidelity. Weights of 1000 classes make torchvision's, whose values are another scale.

    Args: path: a PyTorch state dict; only tensors are read of it.
    Raises UserError: the file is missing, or does not hold the weights of InceptionV3.
    """
    from torchvision.models import Inception3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: tensor for name, tensor in state.items() if not name.startswith("AuxLogits.")}
        classes = len(state["fc.weight"])
        network: Any = Inception3(num_classes=classes, aux_logits=False, init_weights=False)
        network.load_state_dict(state)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}. {_REMEDY}") from None
    except (AttributeError, KeyError, TypeError, EOFError, RuntimeError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(f"{path}: does not hold the weights of InceptionV3: {first_line(error)}. {_REMEDY}") from None
    last = network.fc
    network.fc = nn.Identity()
    if classes == FID_CLASSES:
        last.bias = None
        for name, block in list(network.named_children()):
            if name.startswith("Mixed_") and name not in ("Mixed_6a", "Mixed_7a"):  # these two only make maps smaller
                setattr(network, name, PooledApart(block, takes_maximum=name == "Mixed_7c"))
    features = InceptionFeatures(network.eval())
    return features, InceptionLogits(features, last)
