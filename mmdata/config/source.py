"""Sections `sources` and `optout`: where metadata comes from, how its columns are read, and what is left out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.section import RelativePath, Section
from mmdata.config.source_filter import SourceFilter

SOURCE_KINDS = Literal["laion", "pairs", "video", "audio", "text", "howto100m", "documents"]

_OF_FILES = frozenset({"lang", "expected_sha256", "expected_md5"})

COLUMNS_OF_KIND: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "pairs": (frozenset({"url", "caption"}), _OF_FILES | {"punsafe", "pwatermark", "face_bboxes"}),
    "video": (frozenset({"url", "caption"}), _OF_FILES | {"punsafe", "pwatermark", "start_s", "end_s"}),
    "audio": (frozenset({"url"}), _OF_FILES | {"caption", "start_s", "end_s"}),
    "text": (frozenset({"caption"}), frozenset({"lang", "punsafe"})),
    "documents": (frozenset({"images", "texts"}), frozenset({"page_url", "lang", "punsafe"})),
}
"""Kinds that take a mapping of columns -> the names that they need, and the names that they may have."""

PART_AND_SLICE_ROWS = {
    "howto100m": (2_000, 200),
    "video": (20_000, 1_000),
    "audio": (20_000, 2_000),
    "documents": (20_000, 1_000),
}
"""Kind -> defaults of part_rows and slice_rows, for kinds whose rows are more work than a picture."""


class Source(Section):
    """One input of metadata: which files, and how their columns are read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Names the parts: `web` gives `web-000000`.")
    kind: SOURCE_KINDS = Field(
        description="`laion` reads LAION-5B, LAION-400M and DataComp columns as they are, `howto100m` the index of "
        "HowTo100M, `documents` (texts with several pictures in order) OBELICS and MMC4; `pairs` (pictures), `video`, "
        "`audio` and `text` take a mapping, and so may `documents`."
    )
    files: RelativePath | Annotated[list[RelativePath], Field(min_length=1)] = Field(
        description="Glob of the metadata files, relative to corpus.yaml, or a URL such as s3://…; or a list of them. "
        "{a,b} and {00..31} stand for each of these."
    )
    part_rows: int = Field(
        200_000,
        ge=1,
        le=10_000_000,
        description="Rows in a part, which a person retries as a whole. Default of `howto100m`: 2000 videos; of "
        "`video`, `audio`, `documents`: 20000.",
    )
    slice_rows: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Rows in a slice, which one worker does. Default of `howto100m`: 200 videos; of `video` and "
        "`documents`: 1000; of `audio`: 2000.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="`pairs`, `video`, `audio`, `text`: name -> column of the file. Names: url, caption, lang, "
        "expected_sha256, expected_md5; start_s, end_s (seconds) if a row is a clip of a longer file; punsafe, "
        "pwatermark (0 to 1) and face_bboxes for the rules and the blurring that read them. `documents`: images, "
        "texts, page_url, lang, where the file is not OBELICS or MMC4.",
    )
    url_template: str | None = Field(
        None,
        description="The URL of a row, where its column `url` holds an id or a file name, which takes the place of "
        "{url}: https://media.example/clips/{url}.",
    )
    clip_s: float | None = Field(
        None,
        gt=0,
        description="`video`, `audio`: the length of each clip in seconds, where a column has its start and none its "
        "end (AudioCaps: 10).",
    )
    percent_encoded_captions: bool = Field(
        default=False, description="Captions are written as in URLs (`a+red%2C+old+car`), as in YFCC100M."
    )
    header: list[str] | None = Field(
        None,
        min_length=1,
        description="The names of the columns of CSV and TSV files without a header line, such as [caption, url].",
    )
    keep_columns: list[str] | None = Field(
        None,
        description="The columns of the file that are kept in `extra`; null: all that do not hold binary data. "
        "Mapped columns need not be named.",
    )
    filter: SourceFilter | None = Field(
        None, description="Rules on the metadata that decide before anything is fetched; null: all rows are let in."
    )
    captions: RelativePath | None = Field(
        None,
        description="`howto100m`: the timed captions, `raw_caption.json`, or one file a video such as "
        "captions/{video_id}.csv (also .vtt, .srt); relative to corpus.yaml, or a URL.",
    )
    captions_encoding: str | None = Field(
        None,
        description="`howto100m`: the encoding of captions that are neither UTF-8 nor UTF-16, such as cp1251 or "
        "gb18030; null: Windows-1252 if they look like a Western language, else their video is `bad_encoding`.",
    )
    max_pictures: int = Field(
        30, ge=1, le=999, description="`documents`: a document with more pictures is a bad row. OBELICS has up to 30."
    )
    fetch_from: str | None = Field(
        None,
        description="A template such as https://mirror.example/{video_id}.mp4, to fetch files from there instead of "
        "from their URL. The URL stays the sample's identity.",
    )

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_kind(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") in PART_AND_SLICE_ROWS:
            part_rows, slice_rows = PART_AND_SLICE_ROWS[data["kind"]]
            return {"part_rows": part_rows, "slice_rows": slice_rows, **data}
        return data

    @field_validator("captions_encoding")
    @classmethod
    def _is_encoding(cls, name: str | None) -> str | None:
        try:
            return None if name is None else b"a".decode(name) and name
        except (LookupError, UnicodeError):
            raise ValueError(f"{name} is not an encoding that Python knows, such as cp1251 or gb18030") from None

    @property
    def patterns(self) -> list[str]:
        """The globs in `files`."""
        return [self.files] if isinstance(self.files, str) else list(self.files)

    @model_validator(mode="after")
    def _header_names_columns_once(self) -> Source:
        if self.header and len(set(self.header)) < len(self.header):
            raise ValueError("header: names a column twice")
        return self

    @model_validator(mode="after")
    def _mapping_is_complete(self) -> Source:
        if self.kind not in COLUMNS_OF_KIND:
            if self.columns:
                raise ValueError(
                    f"`columns` belongs to the kinds {', '.join(COLUMNS_OF_KIND)}; `{self.kind}` has fixed columns"
                )
        else:
            needed, optional = COLUMNS_OF_KIND[self.kind]
            is_published = self.kind == "documents" and not self.columns  # OBELICS and MMC4 need no mapping
            if not is_published and not needed <= set(self.columns):
                wanted = ", ".join(f"{name}: <column>" for name in sorted(needed, reverse=True))
                raise ValueError(f"a `{self.kind}` source needs columns: {{{wanted}}}")
            if unknown := set(self.columns) - needed - optional:
                raise ValueError(f"columns: {sorted(unknown)} not known; the names are {sorted(needed | optional)}")
            has_end = "end_s" in self.columns or self.clip_s is not None
            if ("start_s" in self.columns) != has_end:
                raise ValueError("columns: start_s and end_s go together; `clip_s` takes the place of end_s")
            if "end_s" in self.columns and self.clip_s is not None:
                raise ValueError("columns: a clip ends either at end_s or after `clip_s`")
        if (self.captions is None) == (self.kind == "howto100m"):
            problem = "needs `captions`" if self.captions is None else "takes no `captions`; kind `howto100m` does"
            raise ValueError(f"a `{self.kind}` source {problem}")
        if self.captions_encoding is not None and self.captions is None:
            raise ValueError("`captions_encoding` belongs to the kind `howto100m`, whose `captions` are decoded by it")
        if self.url_template is not None and ("{url}" not in self.url_template or "url" not in self.columns):
            raise ValueError("url_template: needs {url} in it, and a column `url`")
        if self.fetch_from is not None and "{video_id}" not in self.fetch_from:
            raise ValueError("fetch_from: there is no {video_id} in it, so all rows would fetch the same file")
        return self


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
