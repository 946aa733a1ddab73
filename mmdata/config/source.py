"""Sources: where metadata comes from, and how its columns are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mmdata.config.section import RelativePath, Section

SOURCE_KINDS = Literal["laion", "pairs", "video", "audio", "text", "howto100m"]

COLUMNS_OF_KIND: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "pairs": (frozenset({"url", "caption"}), frozenset({"lang", "expected_sha256"})),
    "video": (frozenset({"url", "caption"}), frozenset({"lang", "expected_sha256", "start_s", "end_s"})),
    "audio": (frozenset({"url"}), frozenset({"caption", "lang", "expected_sha256", "start_s", "end_s"})),
    "text": (frozenset({"caption"}), frozenset({"lang"})),
}
"""Kinds that take a mapping of columns: those they need, and those they may name."""

PART_AND_SLICE_ROWS = {"howto100m": (2_000, 200), "video": (20_000, 1_000), "audio": (20_000, 2_000)}
"""Kind -> defaults of part_rows and slice_rows, where a row is more work than a picture; else (200,000, 10,000)."""


class Source(Section):
    """One input of metadata: which files, and how their columns are read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Names the parts: `web` gives `web-000000`.")
    kind: SOURCE_KINDS = Field(
        description="`laion` reads LAION-5B, LAION-400M and DataComp columns as they are, `howto100m` the index of "
        "HowTo100M; `pairs` (pictures), `video`, `audio` and `text` take a mapping."
    )
    files: RelativePath = Field(
        description="Glob of the metadata files, relative to corpus.yaml, or a URL such as s3://…"
    )
    part_rows: int = Field(
        200_000,
        ge=1,
        le=10_000_000,
        description="Rows a part: what a person retries. `howto100m`: 2000 videos; `video`, `audio`: 20000.",
    )
    slice_rows: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Rows a slice: what a worker does. `howto100m`: 200 videos; `video`: 1000; `audio`: 2000.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="`pairs`, `video`, `audio`, `text`: our name -> the file's column. Names: url, caption, lang, "
        "expected_sha256, and start_s, end_s (seconds) where a row is a clip of a longer file.",
    )
    captions: RelativePath | None = Field(
        None,
        description="`howto100m`: the timed captions, `raw_caption.json`, or one file a video such as "
        "captions/{video_id}.csv (also .vtt, .srt); relative to corpus.yaml, or a URL.",
    )
    fetch_from: str | None = Field(
        None,
        description="Where files are fetched from, if not from their URL: a template such as "
        "https://mirror.example/{video_id}.mp4. The sample's identity stays its URL.",
    )

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_kind(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") in PART_AND_SLICE_ROWS:
            part_rows, slice_rows = PART_AND_SLICE_ROWS[data["kind"]]
            return {"part_rows": part_rows, "slice_rows": slice_rows, **data}
        return data

    @model_validator(mode="after")
    def _mapping_is_complete(self) -> Source:
        if self.kind not in COLUMNS_OF_KIND:
            if self.columns:
                raise ValueError(
                    f"`columns` is for kinds {', '.join(COLUMNS_OF_KIND)}; `{self.kind}` knows its columns"
                )
        else:
            needed, may = COLUMNS_OF_KIND[self.kind]
            if not needed <= set(self.columns):
                wanted = ", ".join(f"{name}: <column>" for name in sorted(needed, reverse=True))
                raise ValueError(f"a `{self.kind}` source needs columns: {{{wanted}}}")
            if unknown := set(self.columns) - needed - may:
                raise ValueError(f"columns: {sorted(unknown)} not known; the names are {sorted(needed | may)}")
            if len({"start_s", "end_s"} & set(self.columns)) == 1:
                raise ValueError("columns: start_s and end_s go together")
        if (self.captions is None) == (self.kind == "howto100m"):
            told = "needs `captions`" if self.captions is None else "takes no `captions`; kind `howto100m` does"
            raise ValueError(f"a `{self.kind}` source {told}")
        if self.fetch_from is not None and "{video_id}" not in self.fetch_from:
            raise ValueError("fetch_from: has no {video_id} in it, so every file would be the same one")
        return self
