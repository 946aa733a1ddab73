"""Scores beside the cosine (`select.scores`), and the rules of `select.filter` that use scores by their names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mmdata.config.section import RelativePath, Section

MEASURES = (
    *("clip_score", "sharpness", "aspect", "audio_score", "audio_rms_db", "silence_ratio", "speech_ratio"),
    *("speech_overlap", "lang_prob", "n_words", "n_chars"),
)
"""Columns of the features tables that the filter may use as scores without a definition."""


def _is_score_name(name: str) -> str:
    if not name.isidentifier() or not name.islower() or not name.isascii():
        raise ValueError(f"{name!r} is no name of a score: use small letters, digits and `_`, a letter first")
    return name


ScoreName = Annotated[str, AfterValidator(_is_score_name)]


class Target(Section):
    """Vectors that a score compares with: pictures, a table, or the validation split of an earlier release."""

    pictures: RelativePath | None = Field(
        None, description="A folder of pictures (subfolders, too). The scorer of the corpus embeds them once."
    )
    table: RelativePath | None = Field(
        None, description="A Parquet file, or a folder of them, with embeddings by the scorer of the corpus."
    )
    release: str | None = Field(None, description="Id of an earlier release: the pictures of its validation split.")
    column: str = Field("embedding", description="Column of the table that holds the embeddings of pictures.")
    text_column: str = Field(
        "text_embedding", description="Column of the table that holds the embeddings of captions, where they are used."
    )

    @model_validator(mode="after")
    def _names_one_source(self) -> Target:
        if sum(source is not None for source in (self.pictures, self.table, self.release)) != 1:
            raise ValueError("a target is one of pictures, table and release: set exactly one")
        return self


class _Kind(Section):
    """What all kinds of scores have: whether the embeddings of captions are read, and the target set, if any."""

    @property
    def reads_texts(self) -> bool:
        return False

    @property
    def compared_with(self) -> Target | None:
        return None


class SClipLoss(_Kind):
    """s-CLIPLoss (Wang et al. 2024, arXiv 2405.19547): the cosine, less how well either side fits anything else."""

    kind: Literal["s-clip-loss"]
    temperature: float = Field(0.01, gt=0, le=1, description="The tau of the formula; 0.01 is what CLIP learned.")
    bank_pairs: int = Field(
        4096, ge=2, le=65_536, description="Pairs of the fixed bank that the sums of the formula run over."
    )

    @property
    def reads_texts(self) -> bool:
        return True


class NormSim(_Kind):
    """NormSim (Wang et al. 2024, arXiv 2405.19547): the norm of the cosines of a picture and a target set."""

    kind: Literal["norm-sim"]
    target: Target = Field(description="What the corpus should be like.")
    p: Literal[2, "inf"] = Field("inf", description="The norm: `inf` is the nearest target, 2 weighs all of them.")

    @property
    def compared_with(self) -> Target | None:
        return self.target


class VarianceAlignment(_Kind):
    """VAS (Wang et al. 2024, arXiv 2402.02055): the alignment of a sample with the second moment of a target set."""

    kind: Literal["vas"]
    target: Target | None = Field(None, description="Target set; null: the bank, a draw of the corpus itself.")
    towers: Literal["picture", "both"] = Field(
        "picture", description="`picture`: v' S v, which the paper found best; `both`: v' S t of picture and caption."
    )
    bank_pairs: int = Field(4096, ge=2, le=65_536, description="Pairs of the bank, where there is no target.")

    @property
    def reads_texts(self) -> bool:
        return self.towers == "both" or self.target is None  # a bank holds pairs

    @property
    def compared_with(self) -> Target | None:
        return self.target


class Aesthetic(_Kind):
    """A linear or MLP head on the embedding of the picture, such as LAION's aesthetic predictors."""

    kind: Literal["aesthetic"]
    weights: RelativePath = Field(
        description="State dict of the head, .safetensors or .pth (read as tensors only): `weight` and `bias`, or the "
        "layers of an MLP (`layers.0.weight`, …). Its input must be the vectors of the corpus's scorer."
    )
    activation: Literal["none", "relu"] = Field(
        "none", description="Between the layers of an MLP; LAION's `linearMSE` heads have none."
    )


class SourceColumn(_Kind):
    """A number that the source itself gives for each row, such as a published similarity."""

    kind: Literal["column"]
    column: str = Field(description="Name of the source's own column (in `extra`); `punsafe` and `pwatermark` too.")
    required: bool = Field(
        False, description="Drop rows whose source gives no number; else the rules on this score pass them."
    )


ScoreKind = Annotated[SClipLoss | NormSim | VarianceAlignment | Aesthetic | SourceColumn, Field(discriminator="kind")]


class TopFraction(Section):
    """Keep the best share of all scored rows by one score, or by a weighted sum of scores."""

    score: ScoreName | None = Field(None, description="The score.")
    weights: dict[ScoreName, float] | None = Field(
        None,
        min_length=1,
        description="Instead of `score`: score -> weight. Each score is standardised first: its mean over the scored "
        "rows is taken off, and it is divided by its standard deviation.",
    )
    fraction: float = Field(gt=0, le=1, description="Share that is kept, of all rows that have the scores.")

    @model_validator(mode="after")
    def _has_score_or_weights(self) -> TopFraction:
        if (self.score is None) == (self.weights is None):
            raise ValueError("set either score or weights")
        return self

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.score,) if self.score is not None else tuple(self.weights or ())

    @property
    def name(self) -> str:
        """What the reason `filter:top:<name>` says."""
        return "+".join(self.scores)


class NearTarget(Section):
    """DataComp's image-based filter: keep what lies in a cluster that is the nearest one of some target vector."""

    target: Target = Field(description="What the corpus should be like.")
    clusters: int | None = Field(
        None,
        ge=1,
        description="k-means clusters of this rule; null: those of `dedup.clusters`. The more, the stricter.",
    )


class Density(Section):
    """Density-based pruning (Abbas et al. 2024, arXiv 2401.04578): dense clusters in a crowd lose more samples."""

    keep: float = Field(
        gt=0, le=1, description="Share of the clustered samples that is kept, after duplicates are gone."
    )
    temperature: float = Field(
        0.1, gt=0, description="Of the softmax over d_intra * d_inter; lower: complex clusters get more of the share."
    )
    tolerance: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="The last release's bounds are kept while the share is within this of `keep`, relative to it.",
    )


def check_score_names(used: Iterable[str], known: Collection[str]) -> None:
    """Raise ValueError for the first name that is no score; it says the nearest known one."""
    for name in used:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]
            raise ValueError(
                f"select.filter uses the score {name!r}, which is not defined: did you mean {near!r}? "
                f"Remedy: define it under select.scores, or use one of {', '.join(sorted(known))}."
            )
