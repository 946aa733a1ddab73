"""Section `recaption`: captions that a vision-language model makes, beside those of the source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mmdata.config.section import ModelFolderOrName, Section

CAPTION_PLACEHOLDER = "{caption}"
"""Stands in `recaption.prompt` for the caption of the source, which the model then rewrites."""


class Recaption(Section):
    """Captions made by a vision-language model; each says so, and the source's caption is kept."""

    model: ModelFolderOrName | None = Field(
        None,
        description="An image-text-to-text model of transformers (folder or hub id: BLIP, LLaVA, Qwen-VL, SmolVLM, …), "
        "or what `captioner` reads; null: no captions are made.",
    )
    captioner: str = Field(
        "transformers",
        description="What runs the model: `transformers`, `training.export.exported_captioner:load` for a folder "
        "of `mmdata export`, or your own `module:function`.",
    )
    prompt: str | None = Field(
        None,
        description="What the model is asked. With `{caption}` in it, the model rewrites the caption of the source. "
        "null: a plain request for a caption.",
    )
    max_tokens: int = Field(
        64, ge=1, le=4096, description="A caption that has not ended after so many tokens is not used."
    )
    kinds: list[Literal["image", "video"]] = Field(
        default=["image"], min_length=1, description="Kinds of samples; of a clip the model sees the middle frame."
    )
    max_clip_score: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Only samples whose own caption scores at most this, and samples without a caption; -1: only the "
        "latter; null: all.",
    )
    share: float = Field(1.0, ge=0, le=1, description="Share of these samples, drawn by uid.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    batch_size: int = Field(16, ge=1, description="Pictures a forward pass.")
    use: Literal["keep_both", "replace_where_better"] = Field(
        "keep_both",
        description="`keep_both`: a release's text is the source's caption, the made one stands beside it; "
        "`replace_where_better`: a picture's made caption is its text if it scores better by more than `margin`. "
        "Where the source has no text, the made caption is the text in both.",
    )
    margin: float = Field(0.0, ge=-2, le=2, description="`replace_where_better`: by how much more it must score.")

    @property
    def is_on(self) -> bool:
        return self.model is not None

    @property
    def rewrites(self) -> bool:
        """Whether the model is shown the caption of the source."""
        return self.prompt is not None and CAPTION_PLACEHOLDER in self.prompt

    @property
    def replaces(self) -> bool:
        """Whether generated captions stand in the place of the source's."""
        return self.is_on and self.use == "replace_where_better"

    @field_validator("captioner")
    @classmethod
    def _names_a_function(cls, name: str) -> str:
        if name != "transformers" and not all(name.partition(":")):
            raise ValueError(f"{name!r} is neither `transformers` nor `module:function`")
        return name


NO_CAPTIONS = Recaption()
