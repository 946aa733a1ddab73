"""An open_clip ViT as transformers' CLIPVisionModel: the same tensors under other names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from training.model.towers import OpenClipVision

_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
}
_MODULES = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}  # the name in transformers is misspelt
_BLOCK_MODULES = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def clip_vision_model(vision: OpenClipVision) -> Any | None:
    """A CLIPVisionModel with the weights of an open_clip tower; None if the tower is not a ViT as CLIP's.

    Its `hidden_states` are the tower's feature maps; its pooled output has no projection.
    """
    from open_clip.transformer import VisionTransformer
    from transformers import CLIPVisionConfig, CLIPVisionModel

    visual = vision.visual
    activation = _activation(visual) if isinstance(visual, VisionTransformer) else None
    height, width = vision.preprocess.size
    if activation is None or height != width or not isinstance(visual.ln_pre, nn.LayerNorm):
        return None
    block = visual.transformer.resblocks[0]
    config = CLIPVisionConfig(
        hidden_size=visual.transformer.width,
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=len(visual.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        image_size=height,
        patch_size=visual.conv1.kernel_size[0],
        hidden_act=activation,
        layer_norm_eps=block.ln_1.eps,
    )
    model = CLIPVisionModel(config).eval()
    state = _renamed(visual.state_dict())
    if model.state_dict().keys() != state.keys():  # such as the scales of layers in newer ViTs
        return None
    model.load_state_dict(state)
    return model


def _activation(visual: Any) -> str | None:
    """What transformers calls the activation; None if it does not know it, or the blocks are of another kind."""
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    block = visual.transformer.resblocks[0]
    if type(block) is not ResidualAttentionBlock:
        return None
    return {QuickGELU: "quick_gelu", nn.GELU: "gelu"}.get(type(block.mlp.gelu))


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of open_clip's tower, without what its head alone uses, under the names of transformers."""
    renamed = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if name in _NAMES:
            renamed[_NAMES[name]] = tensor
        elif module in _MODULES:
            renamed[f"{_MODULES[module]}.{kind}"] = tensor
        elif name.startswith("transformer.resblocks."):
            number, _, name_in_block = name.removeprefix("transformer.resblocks.").partition(".")
            renamed |= _renamed_in_block(f"encoder.layers.{number}", name_in_block, tensor)
        elif name.partition(".")[0] not in ("proj", "attn_pool"):
            renamed[name] = tensor
    return renamed


def _renamed_in_block(prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    module, _, kind = name.rpartition(".")
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        return {
            f"{prefix}.self_attn.{part}_proj.{kind}": rows for part, rows in zip("qkv", tensor.chunk(3), strict=True)
        }
    return {f"{prefix}.{_BLOCK_MODULES.get(module, module)}.{kind}": tensor}
