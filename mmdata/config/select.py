"""Which samples a release holds, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmdata.config.balance import Balance, Oversample
from mmdata.config.section import Section


class Filter(Section):
    """Which samples are good enough. Every rule that is set applies; the first that fails is the reason."""

    preset: Literal["laion2b", "datacomp-basic", "clip-l14-top30"] | None = Field(
        None, description="A published recipe; keys set beside it override it."
    )
    min_clip_score: float | None = Field(None, ge=-1, le=1, description="Image-text cosine at least this.")
    top_fraction: float | None = Field(None, gt=0, le=1, description="Keep exactly this best share by CLIP score.")
    top_fraction_tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The last release's cut is kept while its share is within this of top_fraction, relative to it: a "
        "refresh then moves no old sample over the cut, and touches few shards. 0: exactly the share, each time.",
    )
    languages: list[str] | None = Field(None, description="ISO 639-1 codes of the captions to keep.")
    min_lang_prob: float = Field(0.0, ge=0, le=1, description="Below this the language counts as unknown (dropped).")
    min_words: int | None = Field(None, ge=0, description="Words in the caption.")
    max_words: int | None = Field(None, ge=1, description="Words in the caption.")
    min_chars: int | None = Field(None, ge=0, description="Characters in the caption.")
    min_side: int | None = Field(None, ge=1, description="Pixels of the original's shorter side.")
    max_aspect: float | None = Field(None, ge=1, description="Longer side over shorter side.")
    min_sharpness: float | None = Field(None, ge=0, description="Variance of the Laplacian.")
    max_punsafe: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The source's own `punsafe`, where it has one; docs/sources.md says under which names.",
    )
    max_pwatermark: float | None = Field(
        None, ge=0, le=1, description="The source's own `pwatermark`, in the same way."
    )
    max_faces: int | None = Field(None, ge=0, description="Faces in a picture, or in the frame of a clip with most.")
    min_audio_score: float | None = Field(None, ge=-1, le=1, description="Sound-text cosine of score.audio_model.")
    min_agreement: float | None = Field(
        None, ge=-1, le=1, description="Cosine of the source's caption and the one of recaption.model, as texts."
    )
    max_agreement: float | None = Field(
        None, ge=-1, le=1, description="The same; samples that agree more say nothing new with their second caption."
    )
    min_speech: float | None = Field(None, ge=0, le=1, description="Share of the sound that is speech.")
    max_speech: float | None = Field(None, ge=0, le=1, description="Share of the sound that is speech.")
    min_overlap: float | None = Field(
        None, ge=0, le=1, description="Share of the captioned time of a clip in which somebody speaks."
    )
    max_silence: float | None = Field(None, ge=0, le=1, description="Share of the sound that is silent.")
    min_loudness_db: float | None = Field(None, le=0, description="Loudness of the sound, dB of full scale.")
    max_black: float | None = Field(None, ge=0, le=1, description="Share of a clip's frames that are black.")
    max_frozen: float | None = Field(
        None, ge=0, le=1, description="Share of a clip's frames that equal the one before."
    )
    min_seconds: float | None = Field(None, ge=0, description="Length of a clip or of sound.")
    max_seconds: float | None = Field(None, gt=0, description="Length of a clip or of sound.")

    @property
    def unused(self) -> set[str]:
        """Keys that have no effect at present, and so are left out of fingerprints."""
        return {key for key in ("min_agreement", "max_agreement") if getattr(self, key) is None}

    @model_validator(mode="after")
    def _one_score_rule(self) -> Filter:
        if self.min_clip_score is not None and self.top_fraction is not None:
            raise ValueError("set min_clip_score or top_fraction, not both: the second would hide the first")
        return self


class Dedup(Section):
    """Which samples count as duplicates. The best-scored sample of a set stays."""

    url: bool = Field(True, description="Same canonical URL.")
    exact: bool = Field(True, description="Same sha256 of the fetched bytes.")
    phash_bits: int | None = Field(4, ge=0, le=16, description="Perceptual-hash bits that may differ; null: off.")
    semantic_eps: float | None = Field(
        0.05, ge=0, le=1, description="Duplicate if cosine >= 1 - eps within a cluster (SemDeDup); null: off."
    )
    text_similarity: float | None = Field(
        0.75,
        gt=0,
        le=1,
        description="Texts (of kind text) are duplicates if the Jaccard similarity of their 4-character pieces is at "
        "least this (found by MinHash); texts under 28 characters never are; null: off.",
    )
    clusters: int | None = Field(None, ge=1, description="k-means clusters; null: about the square root of the rows.")


class Select(Section):
    """Which samples a release holds, and how often."""

    filter: Filter = Filter()
    dedup: Dedup = Dedup()
    balance: Balance = Balance()
    oversample: Oversample = Oversample()

    @property
    def needs_text_embeddings(self) -> bool:
        """Whether anything here reads the embeddings of the captions."""
        return False
