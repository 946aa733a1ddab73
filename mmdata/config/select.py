"""Which samples a release holds, and how often."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.balance import Balance, Oversample
from mmdata.config.evaluation_set import EvaluationSet
from mmdata.config.section import Section
from mmdata.config.select_scores import MEASURES, Density, NearTarget, ScoreKind, ScoreName, Target, TopFraction


class Filter(Section):
    """Which samples are good enough. Every rule that is set applies; the first that fails is the reason."""

    preset: (
        Literal[
            "laion2b-en",
            "laion2b-multi",
            "laion5b",
            "datacomp-basic",
            "datacomp-laion2b",
            "clip-b32-top30",
            "clip-l14-top30",
            "laion2b",
        ]
        | None
    ) = Field(
        None,
        description="A published recipe; keys set beside it override it. docs/sources.md has the rules of each. "
        "`laion2b` is `laion2b-en`.",
    )
    preset_scorer: Literal["published", "any"] = Field(
        "published",
        description="`published`: a preset with a threshold is refused with another scorer than its own; `any`: the "
        "threshold is meant for the scorer in `score`.",
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
    min_scores: dict[ScoreName, float] = Field(
        default_factory=dict, description="Score -> at least this; of `select.scores`, or a measure such as sharpness."
    )
    max_scores: dict[ScoreName, float] = Field(
        default_factory=dict, description="Score -> at most this, such as `{text_area: 0.3}` with score.text_area."
    )
    top: list[TopFraction] = Field(
        default_factory=list,
        description="Best shares by scores or by weighted sums of scores; a sample must be in all of them. "
        "`top_fraction_tolerance` holds for them, too.",
    )
    near_target: NearTarget | None = Field(
        None, description="Keep what lies in a cluster near a target set (the image-based filter of DataComp)."
    )
    languages: list[str] | None = Field(None, description="ISO 639-1 codes of the captions to keep.")
    exclude_languages: list[str] | None = Field(
        None, description="ISO 639-1 codes of the captions to drop; captions without a language are dropped, too."
    )
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
        description="The source's own `punsafe`, where it has one (docs/sources.md says under which names), and "
        "`score_nsfw` where score.nsfw is on: the worse of both decides.",
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
    def used_scores(self) -> tuple[str, ...]:
        """The names of the scores that decide."""
        tops = [name for entry in self.top for name in entry.scores]
        return tuple(dict.fromkeys([*self.min_scores, *self.max_scores, *tops]))

    @property
    def unused(self) -> set[str]:
        """Keys that have no effect at present, and so are left out of fingerprints."""
        unset = {key for key in ("min_agreement", "max_agreement", "exclude_languages") if getattr(self, key) is None}
        return {"preset_scorer", *unset}

    @model_validator(mode="after")
    def _one_score_rule(self) -> Filter:
        if self.min_clip_score is not None and self.top_fraction is not None:
            raise ValueError("set min_clip_score or top_fraction, not both: the second would hide the first")
        if self.min_clip_score is not None and "clip_score" in self.min_scores:
            raise ValueError("set min_clip_score or min_scores.clip_score, not both: they are the same rule")
        names = [entry.name for entry in self.top]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"top has two entries for {sorted(repeated)[0]}: the smaller fraction is enough")
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
    scores: dict[ScoreName, ScoreKind] = Field(
        default_factory=dict,
        description="Scores beside the cosine, by name: `{NAME: {kind: …}}`; docs/decisions.md says what each is. They "
        "are computed from kept vectors, and only those that the filter or `keep_scores` names.",
    )
    keep_scores: list[ScoreName] = Field(
        default_factory=list, description="Scores to write into the selection although no rule uses them."
    )
    density: Density | None = Field(None, description="Density-based pruning of the clusters; null: off.")
    decontaminate: list[EvaluationSet] = Field(
        default_factory=list, description="Evaluation sets that a release must not contain."
    )

    @field_validator("scores")
    @classmethod
    def _names_are_free(cls, scores: dict[str, ScoreKind]) -> dict[str, ScoreKind]:
        if taken := sorted(set(scores) & set(MEASURES)):
            raise ValueError(f"{taken[0]} is a measure of the features tables already: choose another name")
        return scores

    @field_validator("decontaminate")
    @classmethod
    def _sets_differ(cls, sets: list[EvaluationSet]) -> list[EvaluationSet]:
        names = [one.name for one in sets]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two evaluation sets are named {sorted(repeated)[0]!r}: choose another name for one")
        return sets

    @property
    def used_scores(self) -> tuple[str, ...]:
        """The names of the scores that a rule or `keep_scores` uses, each once, besides the cosine."""
        names = dict.fromkeys([*self.filter.used_scores, *self.keep_scores])
        return tuple(name for name in names if name != "clip_score")

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target sets that used scores and rules compare with."""
        kinds = [self.scores[name] for name in self.used_scores if name in self.scores]
        of_scores = [kind.compared_with for kind in kinds if kind.compared_with is not None]
        return (*of_scores, *((self.filter.near_target.target,) if self.filter.near_target else ()))

    @property
    def needs_text_embeddings(self) -> bool:
        """Whether anything here reads the embeddings of the captions."""
        kinds = [self.scores[name] for name in self.used_scores if name in self.scores]
        return any(kind.reads_texts for kind in kinds)

    @property
    def unused(self) -> dict[str, Any]:
        """What has no effect at present, and so is left out of fingerprints; as `exclude` of pydantic takes it."""
        rules: dict[str, Any] = {key: True for key in _SCORE_KEYS if not getattr(self.filter, key)}
        scores = {name: _PATHS if name in self.used_scores else True for name in self.scores}
        return {
            "balance": self.balance.unused,
            "filter": {"near_target": _PATHS, **rules, **dict.fromkeys(self.filter.unused, True)},
            "scores": scores if self.used_scores else True,
            "decontaminate": {"__all__": _FILES} if self.decontaminate else True,
            **{key: True for key in ("keep_scores", "density") if not getattr(self, key)},
        }


_SCORE_KEYS = ("min_scores", "max_scores", "top", "near_target")
_FILES = {"pictures": True, "table": True}
_PATHS = {"weights": True, "target": _FILES}
"""Files decide by what they hold, not by where they lie; see `selection_file_states`."""
