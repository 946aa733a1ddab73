"""`select.decontaminate`: the evaluation sets that a release must not contain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmdata.config.section import RelativePath, Section

PrintColumn = Literal["url", "sha256", "phash", "embedding", "text"]


class EvaluationSet(Section):
    """Pictures or texts that models are evaluated on: samples that match one of them stay out of every release."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$", description="Names the reason: `contaminated:imagenet-val`."
    )
    pictures: RelativePath | None = Field(
        None, description="A folder of pictures (subfolders, too), or one picture. They are read and embedded once."
    )
    table: RelativePath | None = Field(
        None, description="A Parquet file, or a folder of them, with at least one of the columns below."
    )
    columns: dict[PrintColumn, str] = Field(
        default_factory=dict,
        description="What is compared -> column of the table: url, sha256 (of the file, hex), phash (64 bits, a number "
        "or 16 hex digits), embedding (by the scorer of the corpus), text. By default the columns of these names.",
    )
    phash_bits: int | None = Field(
        4, ge=0, le=16, description="Perceptual-hash bits that may differ; null: hashes are not compared."
    )
    min_cosine: float | None = Field(
        0.95, gt=0, le=1, description="Embeddings match from this cosine on; null: they are not compared."
    )
    text_similarity: float | None = Field(
        0.75,
        gt=0,
        le=1,
        description="Texts (of kind text) match from this Jaccard similarity of their 4-character pieces on, and "
        "equal ones always; null: texts are not compared.",
    )

    @model_validator(mode="after")
    def _has_one_input(self) -> EvaluationSet:
        if (self.pictures is None) == (self.table is None):
            raise ValueError("an evaluation set is pictures or a table: set exactly one")
        if self.pictures is not None and self.columns:
            raise ValueError("columns are those of a table, and this evaluation set is pictures")
        return self
