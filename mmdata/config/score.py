"""Section `score`: the models that score samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mmdata.config.section import CheckpointOrTag, ModelFolderOrName, Section


class Score(Section):
    """Which open_clip model scores the pairs, and on which device."""

    model: ModelFolderOrName = Field(
        "ViT-B-32",
        description="An open_clip model, `hf-hub:…`, `demo` (the small offline scorer), or a folder of stage `align`.",
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

    @model_validator(mode="before")
    @classmethod
    def _demo_has_no_tag(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("model") == "demo":
            return {"pretrained": None, **data}
        return data
