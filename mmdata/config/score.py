"""Section `score`: the models that score samples."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.section import CheckpointOrTag, ModelFolderOrName, Section

RESERVED_NAMES = ("nsfw", "text_area", "clip", "watermark")
"""Names of scores that no network may have."""


class Network(Section):
    """A further dual encoder that scores pairs."""

    model: ModelFolderOrName = Field(
        description="A folder of stage `align` (a data filtering network, for example), or an open_clip model."
    )
    pretrained: CheckpointOrTag | None = Field(None, description="open_clip's pretrained tag or a checkpoint path.")


class Score(Section):
    """Which open_clip model scores the pairs, and on which device."""

    model: ModelFolderOrName = Field(
        "ViT-B-32",
        description="An open_clip model, `hf-hub:…`, `demo` (the small offline scorer), a folder of stage `align`, "
        "or a folder of CLIP, SigLIP or SigLIP2 of transformers.",
    )
    pretrained: CheckpointOrTag | None = Field(
        "laion2b_s34b_b79k", description="open_clip's pretrained tag or a checkpoint path."
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    batch_size: int = Field(256, ge=1, description="Samples a forward pass; on a CPU it takes fewer at a time.")
    threads: int = Field(0, ge=0, description="Decoding threads; 0 means one a core.")
    compile: bool = Field(False, description="torch.compile the towers: worth it for long runs on a GPU.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="`auto`: bf16 on CUDA, else fp32.")
    text_embeddings: bool = Field(
        True,
        description="Keep the embeddings of the captions beside those of the pictures. Scores of the selection are "
        "computed from both.",
    )
    audio_model: ModelFolderOrName | None = Field(
        None, description="A CLAP model of transformers (folder or hub id) that scores sound against captions."
    )
    transcriber: ModelFolderOrName | None = Field(
        None, description="A speech-to-text model of transformers (Whisper's kind) for sound without text."
    )

    nsfw: bool = Field(
        False,
        description="Score how likely a picture is not safe for work (open_nsfw; mmdata[scores]): column `score_nsfw`.",
    )
    text_area: bool = Field(
        False,
        description="Measure which share of a picture is covered by text (PP-OCRv4; mmdata[scores]): column "
        "`score_text_area`.",
    )
    networks: dict[str, Network] = Field(
        default_factory=dict,
        description="Name -> further dual encoder, `{model: …, pretrained: …}`; its cosines are column `score_<name>`.",
    )

    @property
    def further_scores(self) -> tuple[str, ...]:
        """Names of the scores in the columns `score_<name>` of the features: those of pictures, then the networks."""
        return (*(name for name in ("nsfw", "text_area") if getattr(self, name)), *self.networks)

    @field_validator("networks")
    @classmethod
    def _names_fit(cls, networks: dict[str, Network]) -> dict[str, Network]:
        for name in networks:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED_NAMES:
                raise ValueError(
                    f"{name!r} cannot be the name of a network: use small letters, digits and `_`, and none of "
                    f"{', '.join(RESERVED_NAMES)}"
                )
        return networks

    @model_validator(mode="before")
    @classmethod
    def _demo_has_no_tag(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("model") == "demo":
            return {"pretrained": None, **data}
        return data
