"""Section `optout`: standing lists of what is left out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mmdata.config.section import RelativePath, Section


class OptOutList(Section):
    """A list of URLs, domains, SHA-256 or uids that are never fetched and never released."""

    path: RelativePath = Field(
        description="A file, relative to corpus.yaml, or a URL (https://…, s3://…): plain text, one entry a line, or "
        "`.csv`, `.tsv`, `.parquet`. Instead of the section you may write the path alone."
    )
    column: str | None = Field(
        None, description="The column of a table that has the entries; null: the one named url, domain, sha256 or uid."
    )
    holds: Literal["url", "domain", "sha256", "uid"] | None = Field(
        None, description="What the entries are; null: as the column's name says, else as each entry looks."
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data
