"""Rules on the metadata of a source (`sources[].filter`): they decide before anything is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from mmdata.config.section import RelativePath, Section
from mmdata.errors import UserError

Value = str | int | float | bool

WIDTHS = ("WIDTH", "original_width", "width")
HEIGHTS = ("HEIGHT", "original_height", "height")
"""Columns of LAION, DataComp and COYO-700M that give the size of a picture."""


class SourceFilter(Section):
    """Which rows of a source are fetched. Every rule that is set applies; the first that fails is the reason."""

    min: dict[str, float] = Field(
        default_factory=dict, description="Column -> least value, e.g. {similarity: 0.28}; NaN counts as missing."
    )
    max: dict[str, float] = Field(default_factory=dict, description="Column -> greatest value.")
    one_of: dict[str, list[Value]] = Field(
        default_factory=dict, description="Column -> its allowed values, e.g. {LICENSE: [cc-by, cc0], NSFW: UNLIKELY}."
    )
    languages: list[str] | None = Field(None, description="Codes in the source's column of languages to keep.")
    min_side: int | None = Field(None, ge=1, description="Pixels of the shorter side, by the source's sizes.")
    max_aspect: float | None = Field(None, ge=1, description="Longer side over shorter side, by the source's sizes.")
    max_punsafe: float | None = Field(None, ge=0, le=1, description="The source's own `punsafe` (or NSFW label).")
    max_pwatermark: float | None = Field(None, ge=0, le=1, description="The source's own `pwatermark`.")
    min_words: int | None = Field(None, ge=1, description="Words in the caption.")
    min_chars: int | None = Field(None, ge=1, description="Characters in the caption.")
    keep_ids: RelativePath | None = Field(
        None, description="Only rows whose id is in this file: DataComp's .npy of uids, .txt, or .parquet."
    )
    drop_ids: RelativePath | None = Field(None, description="No rows whose id is in this file.")
    id_column: str = Field(
        "uid", description="The column that the ids are compared with, of the source and of a Parquet."
    )
    missing: Literal["drop", "keep"] = Field(
        "drop",
        description="What becomes of a row that lacks the value of a rule; `drop`, as a comparison in pandas does.",
    )

    @field_validator("one_of", mode="before")
    @classmethod
    def _one_value_is_a_list(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {column: value if isinstance(value, list) else [value] for column, value in data.items()}

    @property
    def columns(self) -> list[str]:
        """The columns that rules name, each once. Sizes, languages and probabilities have names of their own."""
        ids = [self.id_column] if self.keep_ids or self.drop_ids else []
        return list(dict.fromkeys([*self.min, *self.max, *self.one_of, *ids]))

    def decided_by(self) -> dict[str, Any]:
        """What decides, as JSON values: the keys that are set, and the size and time of each list of ids.

        Raises:
            UserError: a list of ids is missing.
        """
        values = self.model_dump(mode="json", exclude_defaults=True)
        for key in ("keep_ids", "drop_ids"):
            if path := getattr(self, key):
                try:
                    facts = Path(path).stat()
                except OSError:
                    raise UserError(
                        f"{path}: no such file, but a source's filter.{key} names it. Remedy: correct the path in "
                        "corpus.yaml."
                    ) from None
                values[key] = [Path(path).name, facts.st_size, facts.st_mtime_ns]
        return values
