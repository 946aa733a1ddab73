"""CLIP, SigLIP and SigLIP2 of transformers: both towers, preprocessing and tokenizer, from one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.errors import UserError, first_line
from mmdata.score.preprocess import Preprocess
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("clip", "siglip", "siglip2")
"""The kinds of models, as `model_type` in config.json names them. Fixed-size SigLIP2 models are of type `siglip`."""

HALF = (0.5, 0.5, 0.5)
_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR


@dataclass(frozen=True, slots=True)
class HfDualEncoder:
    """A dual encoder of transformers in evaluation mode, float32, on the CPU.

    It has those methods of open_clip's models that the scorer calls.
    """

    model: Any  # CLIPModel, SiglipModel or Siglip2Model
    preprocess: Preprocess
    tokenizer: Any

    def tokenize(self, captions: list[str]) -> torch.Tensor:
        """Captions, padded and cut to the model's context: int64 B,T."""
        length = int(self.model.config.text_config.max_position_embeddings)
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return self.tokenizer(captions, **options)["input_ids"]

    def encode_image(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised pixels -> B,D, not of unit length."""
        tower = self.model.vision_model
        pooled_BC = tower(**picture_inputs(tower.config, pixels_BCHW)).pooler_output
        return _projected(self.model, "visual_projection", pooled_BC)

    def encode_text(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Token ids -> B,D, not of unit length."""
        pooled_BC = self.model.text_model(input_ids=tokens_BT).pooler_output
        return _projected(self.model, "text_projection", pooled_BC)

    def to(self, device: torch.device) -> HfDualEncoder:
        """Move the towers to a device, in place."""
        self.model.to(device)
        return self

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights under the names of transformers."""
        return self.model.state_dict()


def _projected(model: Any, name: str, pooled_BC: torch.Tensor) -> torch.Tensor:
    """CLIP has projections; SigLIP's poolers give the embedding itself."""
    projection = getattr(model, name, None)
    return pooled_BC if projection is None else projection(pooled_BC)


def picture_inputs(config: Any, pixels_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
    """Normalised pixels as the arguments of an image tower. SigLIP2's takes patches: row by row, then by channel."""
    if config.model_type != "siglip2_vision_model":
        return {"pixel_values": pixels_BCHW}
    import torch

    count, _, height, width = pixels_BCHW.shape
    side = config.patch_size
    grid = (height // side, width // side)
    patches_BCrpcq = pixels_BCHW.unflatten(3, (grid[1], side)).unflatten(2, (grid[0], side))
    patches_BNV = patches_BCrpcq.permute(0, 2, 4, 3, 5, 1).reshape(count, grid[0] * grid[1], -1)
    return {
        "pixel_values": patches_BNV,
        "pixel_attention_mask": torch.ones(patches_BNV.shape[:2], dtype=torch.long, device=pixels_BCHW.device),
        "spatial_shapes": torch.tensor([grid] * count),  # on the CPU, where transformers reads the numbers
    }


def is_dual_encoder_folder(folder: Path) -> bool:
    """Whether a folder has the files of a model of transformers and not those of open_clip."""
    return (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file()


def load_dual_encoder(name: str, key: str, other_remedy: str = "") -> HfDualEncoder:
    """Both towers with their projections and logit scale, the preprocessing, and the tokenizer.

    Args:
        name: a folder, or an id of the Hugging Face hub.
        key: the setting that names it, for the error.
        other_remedy: what else the user of the setting can do.

    Raises UserError: a model of another kind, or files that are missing or cannot be read.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    safe = {"trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(name, **safe)
        if config.model_type not in MODEL_TYPES:
            raise UserError(
                f"{key}: {name} holds a model of type `{config.model_type}`; dual encoders of transformers are of type "
                f"{', '.join(MODEL_TYPES)}. Remedy: the folder of such a model{other_remedy}."
            )
        model = AutoModel.from_pretrained(name, dtype="float32", weights_only=True, **safe)
        processor = AutoImageProcessor.from_pretrained(name, **safe)
        tokenizer = AutoTokenizer.from_pretrained(name, **safe)
    except (OSError, ValueError, KeyError, ImportError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(
            f"{key}: {name} cannot be loaded: {first_line(error)}. Remedy: a folder or hub id of CLIP, SigLIP or "
            "SigLIP2, with its tokenizer and preprocessor_config.json."
        ) from error
    return HfDualEncoder(model.eval(), tower_preprocess(name, key, processor, config.vision_config), tokenizer)


def tower_preprocess(name: str, key: str, processor: Any, vision: Any) -> Preprocess:
    """What an image processor does for an image tower. Raises UserError if mmdata cannot do the same.

    Args:
        name, key: of the model, and of the setting that names it, for the error.
        vision: the configuration of the image tower.
    """
    if vision.model_type == "siglip2_vision_model":  # of any aspect ratio there; here all pictures have one grid
        side = int(vision.num_patches**0.5) * vision.patch_size
        return processor_preprocess(processor, (side, side))
    side = vision.image_size
    sizes = dict(processor.size)
    if getattr(processor, "do_center_crop", None):
        sizes |= {f"crop {name}": edge for name, edge in dict(processor.crop_size).items()}
    if getattr(processor, "do_pad", None):
        sizes["do_pad"] = True
    if set(sizes.values()) - {None} != {side}:
        raise UserError(
            f"{key}: preprocessor_config.json of {name} resizes, crops or pads pictures to {sizes}, and the model "
            f"takes {side} pixels. Remedy: write {side} for `size` and `crop_size` there, and no `do_pad`."
        )
    return processor_preprocess(processor, (side, side))


def processor_preprocess(processor: Any, size: tuple[int, int]) -> Preprocess:
    """What an image processor of transformers does. Args: size: height and width that the model takes."""
    sizes = getattr(processor, "size", None) or {}
    return Preprocess(
        size=size,
        mean=tuple(processor.image_mean or HALF),
        std=tuple(processor.image_std or HALF),
        interpolation="bilinear" if processor.resample == _BILINEAR else "bicubic",
        resize_mode="shortest" if sizes.get("shortest_edge") else "squash",
    )
