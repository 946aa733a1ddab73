"""The towers of CLIP, SigLIP and SigLIP2 models of transformers, as stage 1 trains them and as a scorer reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmdata.score.hf_dual_encoder import HfDualEncoder, load_dual_encoder, picture_inputs
from mmdata.score.preprocess import Preprocess
from mmdata.storage.digests import write_digests
from training.model.towers import Tower

_MODULES = ("vision_model", "visual_projection", "text_model", "text_projection")  # of transformers' dual encoders


class HfDualVision(Tower):
    """The image tower of CLIP or SigLIP. It takes normalised pixels B,C,H,W.

    Args:
        model: CLIPVisionModel, SiglipVisionModel or Siglip2VisionModel.
        projection: CLIP's into the shared space. SigLIP has none: its pooling head gives the embedding.
    """

    def __init__(self, model: Any, projection: nn.Linear | None, preprocess: Preprocess) -> None:
        super().__init__()
        self.model, self.projection, self.preprocess = model, projection, preprocess

    def body(self, inputs: Tensor) -> Tensor:
        outputs = self.model(**picture_inputs(self.model.config, inputs))
        return outputs.last_hidden_state if self._pools_in_head else outputs.pooler_output

    def head(self, features: Tensor) -> Tensor:
        if not self._pools_in_head:
            return features if self.projection is None else self.projection(features)
        takes_mask = self.model.config.model_type == "siglip2_vision_model"
        return self.model.head(features, None) if takes_mask else self.model.head(features)

    @property
    def _pools_in_head(self) -> bool:
        return hasattr(self.model, "head")

    def maps(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Feature maps B,C,h,w at every depth, the deepest last. None of them is normalised."""
        outputs = self.model(**picture_inputs(self.model.config, pixels_BCHW), output_hidden_states=True)
        side = self.model.config.patch_size
        grid = (pixels_BCHW.shape[2] // side, pixels_BCHW.shape[3] // side)
        patches = (hidden_BNC[:, hidden_BNC.shape[1] - grid[0] * grid[1] :] for hidden_BNC in outputs.hidden_states[1:])
        return [patches_BNC.transpose(1, 2).unflatten(2, grid) for patches_BNC in patches]  # without CLIP's class token

    def head_names(self) -> tuple[str, ...]:
        return ("projection", "model.head")


class HfDualText(Tower):
    """The text tower of CLIP or SigLIP. It takes tokens B,T.

    Args:
        model: CLIPTextModel, SiglipTextModel or Siglip2TextModel.
        projection: CLIP's into the shared space. SigLIP's is a part of its text model.
    """

    def __init__(self, model: Any, projection: nn.Linear | None) -> None:
        super().__init__()
        self.model, self.projection = model, projection

    def body(self, inputs: Tensor) -> Tensor:
        outputs = self.model(input_ids=inputs)
        return outputs.last_hidden_state[:, -1] if self.projection is None else outputs.pooler_output

    def tokens(self, inputs: Tensor) -> Tensor:
        """A vector for each token B,T,C, before they are pooled."""
        return self.model(input_ids=inputs).last_hidden_state

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return int(self.model.config.vocab_size)

    def head(self, features: Tensor) -> Tensor:
        return self.model.head(features) if self.projection is None else self.projection(features)

    def head_names(self) -> tuple[str, ...]:
        return ("projection", "model.head")


def dual_towers(dual: HfDualEncoder) -> tuple[HfDualVision, HfDualText]:
    """The towers of a loaded model, which share its weights."""
    vision_model, visual_projection, text_model, text_projection = (
        getattr(dual.model, name, None) for name in _MODULES
    )
    return HfDualVision(vision_model, visual_projection, dual.preprocess), HfDualText(text_model, text_projection)


def save_dual(name: str, vision: HfDualVision, text: HfDualText, scalars: Mapping[str, Tensor], folder: Path) -> None:
    """Write towers as a folder of transformers, with the preprocessing and the tokenizer of the model they began as.

    Args:
        name: the folder or hub id of that model.
        scalars: `logit_scale` and `logit_bias`; what the model does not have is left out.
    """
    from transformers import AutoImageProcessor

    dual = load_dual_encoder(name, "model.encoder")
    for part, trained in zip(dual_towers(dual), (vision, text), strict=True):
        part.load_state_dict(trained.state_dict())
    for scalar, value in scalars.items():
        if (parameter := getattr(dual.model, scalar, None)) is not None:
            parameter.data.copy_(value.detach().reshape(parameter.shape))
    dual.model.save_pretrained(folder)
    dual.tokenizer.save_pretrained(folder)
    AutoImageProcessor.from_pretrained(name, trust_remote_code=False).save_pretrained(folder)
    write_digests(sorted(folder.glob("*.safetensors")))
