"""Sections `shards`, `instruct` and `releases`: how a release is written, and which releases are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmdata.config.section import Section


class Shards(Section):
    """How a release is packed into shards."""

    shard_mb: float = Field(256, gt=0, description="Approximate size of a shard in megabytes (10^6 bytes).")
    validation_fraction: float = Field(0.01, ge=0, lt=1, description="Share of clusters held out as `validation`.")


TASKS = Literal[
    "caption",
    "detailed_caption",
    "match",
    "reference_image",
    "text_qa",
    "text_to_image",
    "step_caption",
    "step_order",
    "what_comes_next",
    "transcribe",
    "audio_visual_match",
]


class Instruct(Section):
    """Which instruction records are written beside the shards."""

    tasks: list[TASKS] = Field(
        default_factory=list,
        description="Tasks to write; empty: those that the samples can give: caption, match and reference_image of "
        "pictures, caption of clips, transcribe of sound, text_qa of texts.",
    )
    languages: list[Literal["en", "zh"]] = Field(default=["en", "zh"], min_length=1, description="Template languages.")
    formats: list[Literal["record", "llava", "chat"]] = Field(
        default=["record", "llava", "chat"], description="JSONL forms; one file each."
    )
    images: Literal["path", "base64"] = Field(
        "path", description="`path` names a member of a shard; `base64` puts the pictures into the records."
    )


class Releases(Section):
    """Which releases are kept, and which changes between releases are sudden."""

    keep: int = Field(
        7, ge=1, description="How many of the newest releases `mmdata gc` keeps, beside the latest and the pinned ones."
    )
    max_shift: float = Field(
        0.1,
        gt=0,
        le=1,
        description="A signature, source, registrable domain or language whose share of the samples changes by more "
        "than this from one release to the next is a sudden change.",
    )
    max_score_shift: float = Field(
        0.25, gt=0, description="A population stability index of the CLIP scores above this is a sudden change, too."
    )
    max_growth: float = Field(
        0.5, gt=0, description="A number of samples that changes by more than this share is a sudden change, too."
    )
    on_sudden_change: Literal["tell", "hold"] = Field(
        "tell", description="`hold`: such a release becomes the latest only when you run `mmdata rollback RELEASE`."
    )
    max_loss: float = Field(
        0.6,
        gt=0,
        le=1,
        description="A release that keeps fewer samples than the latest one, by more than this share, is held: it "
        "becomes the latest only when you run `mmdata rollback RELEASE`. Opted-out samples are not counted as lost.",
    )
