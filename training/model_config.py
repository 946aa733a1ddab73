"""The settings of the towers, the language model and what joins them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mmdata.config import Section


class Encoder(Section):
    """The image encoder, and the text encoder that stage 1 aligns with it."""

    kind: Literal["open_clip", "demo", "hf"] = Field(
        "open_clip",
        description="`open_clip`: a dual encoder; `demo`: the packaged offline towers; `hf`: Hugging Face encoders.",
    )
    model: str = Field(
        "ViT-B-32",
        description="Name in open_clip or `local-dir:…`. For `hf` a hub id or a folder: of CLIP, SigLIP or SigLIP2, "
        "which is loaded whole, or of an image encoder.",
    )
    pretrained: str | None = Field(None, description="Pretrained tag of open_clip or a checkpoint; null: random.")
    config: dict[str, Any] | None = Field(
        None, description="Instead of `model`: open_clip's model config, or `model_type` and settings of an HF model."
    )
    text_model: str | None = Field(
        None, description="`hf` only: hub id or folder of the text encoder; null: `model` has one."
    )
    text_config: dict[str, Any] | None = Field(None, description="`hf` only: a text encoder with random weights.")
    embed_dim: int = Field(
        256, ge=1, description="`hf`, two encoders: width of the space that both are projected into."
    )
    tokenizer: str | None = Field(
        None, description="`hf`, two encoders: hub id or folder; null: the text model's, or bytes."
    )
    context_length: int = Field(64, ge=1, description="`hf`, two encoders: the most tokens of a caption that are read.")


class Audio(Section):
    """The sound encoder. It takes 16 kHz mono."""

    kind: Literal["none", "logmel_vit", "wav2vec2"] = Field("none", description="`none`: sound is not used.")
    model: str | None = Field(None, description="Hub id or folder of Wav2Vec2 weights; null: random weights.")
    config: dict[str, Any] = Field(default_factory=dict, description="Settings of the HF config for random weights.")
    seconds: float = Field(10.0, ge=0.2, description="Longer sound is cut; shorter sound is padded with silence.")
    mel_bins: int = Field(64, ge=16, multiple_of=16, description="`logmel_vit`: mel bands; a patch is 16 high.")


class Llm(Section):
    """The causal language model."""

    kind: Literal["hf", "gguf", "config"] = Field("hf", description="Hub id or folder, a GGUF file, or random weights.")
    model: str = Field(
        "Qwen/Qwen2.5-0.5B",
        description="Hub id or folder (of a vision-language model: its language model), .gguf file, or `smollm2` "
        "(packaged).",
    )
    config: dict[str, Any] = Field(default_factory=dict, description="`config`: `model_type` and settings.")
    tokenizer: str | None = Field(None, description="Hub id or folder; `bytes`: a token per byte; null: the model's.")
    attention: Literal["auto", "flash_attention_2", "flash_attention_3", "flex_attention", "sdpa", "eager"] = Field(
        "auto",
        description="Kernel; auto: on a GPU flash attention where it is installed, else flex_attention; else sdpa.",
    )
    sliding_window: int | None = Field(
        None, ge=1, description="Attention reaches back at most this many tokens; not with flash attention."
    )

    @model_validator(mode="after")
    def _kernel_has_windows(self) -> Llm:
        if self.sliding_window is not None and self.attention.startswith("flash"):
            raise ValueError(f'{self.attention} has no sliding_window here. Set attention = "flex_attention" or "auto"')
        return self


class Model(Section):
    """The model, and where pictures enter the language model."""

    encoder: Encoder = Encoder()
    audio: Audio = Audio()
    llm: Llm = Llm()
    architecture: Literal["single_tower", "cross_attention"] = Field(
        "single_tower",
        description="Media are tokens in the LLM's sequence, or are read from outside it by gated cross-attention.",
    )
    fusion: Literal["early", "late", "hierarchical", "attention"] = Field(
        "early",
        description="Where media enter. `early`: at the first layer of the LLM; `late`: at three quarters of them; "
        "`hierarchical`: several depths of the encoder, each at another layer; `attention`: tokens "
        "condensed by learned queries, at the first layer or, with `cross_attention`, at every fourth.",
    )
    picture_features: Literal["map", "embedding"] = Field(
        "map",
        description="What the LLM reads of a picture: the encoder's feature map, a token for each of its places, or "
        "`embedding`, one token: its vector in the space that stage `align` trains (as ClipCap, Mokady et al. 2021).",
    )
    picture_layer: int = Field(
        -1,
        le=-1,
        description="Which layer of the image encoder the feature map comes from: -1 is the last, -2 the one before it "
        "(LLaVA 1.5's).",
    )
    projector: Literal["norm_mlp", "mlp", "linear"] = Field(
        "norm_mlp",
        description="How features are mapped to the LLM's width. `norm_mlp`: layer norm, linear, GELU, linear; `mlp`: "
        "the same without the norm; `linear`. The last two can be exported as LLaVA (`mmdata export --llava`).",
    )
    llava: str | None = Field(
        None,
        description="Hub id or folder of a LLaVA model: stages `joint` and `instruct` start from its image tower, "
        "projector and language model. It replaces encoder, llm.model, picture_layer and projector.",
    )
    queries: int = Field(32, ge=1, description="fusion `attention`: tokens that the resampler makes from one picture.")
    connector_width: int | None = Field(None, ge=1, description="Hidden width of the projector; null: that of the LLM.")

    @model_validator(mode="after")
    def _llava_has_its_form(self) -> Model:
        form = {"architecture": "single_tower", "fusion": "early", "picture_features": "map", "connector_width": None}
        different = [key for key, value in form.items() if getattr(self, key) != value]
        different += ["audio.kind"] if self.audio.kind != "none" else []
        if self.llava is not None and different:
            raise ValueError(f"llava: a LLaVA model has another {' and '.join(different)}. Leave it at its default")
        return self

    @model_validator(mode="after")
    def _depths_have_maps(self) -> Model:
        if self.picture_features == "embedding" and self.picture_layer != -1:
            raise ValueError("picture_layer is of feature maps; picture_features `embedding` reads none")
        if self.picture_features == "embedding" and self.fusion == "hierarchical":
            raise ValueError(
                "fusion `hierarchical` reads maps of several depths; picture_features `embedding` is one vector"
            )
        return self
