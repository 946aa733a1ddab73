"""Finds URL, caption and other columns of a source file: of LAION and DataComp as published, or by a mapping."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmdata.config import Source
from mmdata.config.source_filter import HEIGHTS, WIDTHS
from mmdata.samples import OWN_SCORES
from mmdata.sources.batches import MissingColumns

VIDEO_ID = "video_id"
"""Name of the column of video ids in the index of HowTo100M."""

IN_ROWS = frozenset({"lang", "language", "caption", "text", "url", "sha256"})
"""Names, in lower case, of columns that stand in the rows table itself, so a rule reads them there."""

PAGE_URL, GENERAL_METADATA = "page_url", "general_metadata"
"""Names in `extra` of the URL of a document's page; of OBELICS, of the JSON object that has it as `url`."""

_EXTRA_NAMES = ("punsafe", "pwatermark", "face_bboxes", VIDEO_ID, PAGE_URL, GENERAL_METADATA)
"""Columns that stay in `extra`; a mapping gives them the name that later stages look for."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns that we read; None if the file has no such column.

    Args:
        renamed: name in `extra` -> column of the file, for mapped columns that stay in `extra`.
        kept: the columns that stay in `extra`; None: all that are not binary.
        constants: values that are the same in all rows of the file, from the folders of its path.
        holds_lists: `url` and `caption` hold the pictures and the texts of a document, which are read as JSON.
    """

    url: str | None = None  # the URL; for an index of videos, the video id, which is also written to `extra`
    caption: str | None = None
    lang: str | None = None
    expected_sha256: str | None = None
    expected_md5: str | None = None
    start_s: str | None = None
    end_s: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] | None = None
    constants: Mapping[str, str | None] = field(default_factory=dict)
    holds_lists: bool = False

    @property
    def mapped(self) -> frozenset[str]:
        """The columns that become columns of the rows table; all others may be written to `extra`."""
        names = (self.url, self.caption, self.lang, self.expected_sha256, self.expected_md5, self.start_s, self.end_s)
        return frozenset(name for name in names if name is not None and name != VIDEO_ID)

    @property
    def text(self) -> list[str]:
        """The columns that are read as text."""
        return [name for name in (self.url, self.caption, self.start_s, self.end_s) if name is not None]

    @property
    def of_file(self) -> list[str]:
        """All columns that are read by name, with repetitions."""
        return [*self.mapped, *self.renamed.values()]

    def extra_names(self, names: Iterable[str]) -> dict[str, str]:
        """Name in `extra` -> column, for a file or a row with the columns `names`."""
        left_out = self.mapped | set(self.renamed.values())
        kept = (name for name in names if name not in left_out and (self.kept is None or name in self.kept))
        return {name: name for name in kept} | dict(self.renamed)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with `.1`, `.2`, … after a name that is there already, as pandas does it."""
    taken, result = set(names), []
    seen: set[str] = set()
    for name in names:
        unique, number = name, 0
        while unique in seen or (unique != name and unique in taken):
            number += 1
            unique = f"{name}.{number}"
        seen.add(unique)
        result.append(unique)
    return result


def columns_of(
    source: Source, names: Sequence[str], path: str, constants: Mapping[str, str | None] | None = None
) -> Columns:
    """The columns of a file that we read. Upper and lower case may differ where that leaves no doubt.

    Args:
        names: of the file; a name may be there more than once if none of these columns is needed.
        constants: columns that the folders of the file's path give (`lang=en/`); a column of the file goes before.

    Raises:
        MissingColumns: a needed column is missing, or there twice; lists the columns of the file.
    """
    constants = {name: value for name, value in (constants or {}).items() if name not in names}
    find = _Finder([*names, *constants], path, source.name)
    if source.kind == "howto100m":
        if (video_id := find.column(VIDEO_ID)) is None:
            remedy = "`files` names HowTo100M's index, HowTo100M_v1.csv, and `captions` its captions."
            raise find.error(f"no column {VIDEO_ID}", remedy)
        mapped = {"url": video_id, VIDEO_ID: video_id}
    elif source.kind == "laion":
        mapped = _published_columns(find)
    elif source.kind == "documents":
        mapped = _document_columns(find, source.columns)
    else:
        mapped = find.mapping(source.columns)
    kept = (
        None if source.keep_columns is None else frozenset(find.mapping(source.keep_columns, "keep_columns").values())
    )
    filtered = _filter_columns(source, find)
    if kept is not None:
        kept |= filtered
    renamed = {name: mapped.pop(name) for name in _EXTRA_NAMES if name in mapped}
    holds_lists = source.kind == "documents"
    columns = Columns(**mapped, renamed=renamed, kept=kept, constants=constants, holds_lists=holds_lists)
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1 and name in columns.of_file):
        raise MissingColumns(
            f"{path}: has more than one column {', '.join(repeated)}, so it is not known which one is meant: "
            f"{_listed(names)}. Remedy: write the file again with each name once."
        )
    return columns


def _filter_columns(source: Source, find: _Finder) -> frozenset[str]:
    """The columns of the file that the source's filter reads; they are kept whatever `keep_columns` says.

    Raises:
        MissingColumns: a rule names a column that the file lacks, and rows without it would be dropped; names the
            nearest.
    """
    rules = source.filter
    if rules is None:
        return frozenset()
    wanted = {name: find.column(name) for name in rules.columns if name.casefold() not in IN_ROWS}
    if missing := sorted(name for name, column in wanted.items() if column is None and rules.missing == "drop"):
        near = find.nearest(missing[0])
        hint = f"did you mean {near}? " if near else ""
        remedy = f"{hint}correct `filter` of source {source.name} in corpus.yaml, or set its `missing: keep`."
        raise find.error(f"no column {', '.join(missing)} (of the source's filter)", remedy)
    further = (*WIDTHS, *HEIGHTS, *OWN_SCORES)
    found = [*wanted.values(), *(find.column(name) for name in further)]
    return frozenset(name for name in found if name is not None)


class _Finder:
    """Finds columns of a file by name, exactly or else without regard to upper and lower case."""

    def __init__(self, names: Sequence[str], path: str, source: str) -> None:
        self._names, self._path, self._source = names, path, source
        self._by_folded: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            self._by_folded.setdefault(_folded(name), []).append(name)

    def column(self, name: str) -> str | None:
        """The column of this name, else the only one that differs in case or outer spaces; None if there is none."""
        similar = self._by_folded.get(_folded(name), [])
        return name if name in similar else similar[0] if len(similar) == 1 else None

    def nearest(self, name: str) -> str | None:
        """The column whose name is most like this one; None if none is alike."""
        by_folded = {_folded(column): column for column in self._names}
        close = difflib.get_close_matches(_folded(name), by_folded, n=1)
        return by_folded[close[0]] if close else None

    def mapping(self, wanted: Mapping[str, str] | Sequence[str], key: str = "columns") -> dict[str, str]:
        """Name -> column of the file. Raises MissingColumns."""
        pairs = dict(wanted) if isinstance(wanted, Mapping) else {name: name for name in wanted}
        columns = {name: self.column(column) for name, column in pairs.items()}
        if missing := sorted(pairs[name] for name, column in columns.items() if column is None):
            remedy = f"correct `{key}` of source {self._source} in corpus.yaml."
            raise self.error(f"no column {', '.join(missing)}", remedy)
        return {name: column for name, column in columns.items() if column is not None}

    def error(self, problem: str, remedy: str) -> MissingColumns:
        """The error for columns that are not there, which lists those that are."""
        remedy = self._remedy_of_header() or remedy
        return MissingColumns(f"{self._path}: {problem} among its columns: {_listed(self._names)}. Remedy: {remedy}")

    def _remedy_of_header(self) -> str | None:
        """What to do if the first line is data instead of names, or has another delimiter; None if it is sound."""
        if any(name.strip().lower().startswith(("http://", "https://")) for name in self._names):
            columns = ", ".join("url" if "://" in name else "caption" for name in self._names)
            return (
                f"its first line is a row and not a header; name its columns in source {self._source} of corpus.yaml, "
                f"for example header: [{columns}]."
            )
        if len(self._names) == 1:
            for delimiter, name, advice in (("\t", "tabs", "rename it to .tsv"), (";", "semicolons", "write commas")):
                if delimiter in self._names[0]:
                    return f"its columns are separated by {name}; {advice}."
        return None


def _published_columns(find: _Finder) -> dict[str, str]:
    """The columns of LAION's and DataComp's tables, in whatever case. Raises MissingColumns for other tables.

    - LAION-400M: SAMPLE_ID, URL, TEXT, HEIGHT, WIDTH, LICENSE, NSFW, similarity
    - LAION-5B: URL, TEXT, WIDTH, HEIGHT, similarity, hash, punsafe, pwatermark, LANGUAGE, aesthetic
    - DataComp: uid, url, text, original_width, original_height, clip_b32_similarity_score, …, face_bboxes, sha256
    """
    url = find.column("URL") or find.column("url")
    caption = find.column("TEXT" if url == "URL" else "text") or find.column("caption")
    if url is None or caption is None:
        known = {"url": url, "caption": caption}
        columns = ", ".join(f"{name}: {column or '<column>'}" for name, column in known.items())
        problem = "neither URL and TEXT (LAION) nor url and text (DataComp)"
        raise find.error(problem, f"kind `pairs` with columns: {{{columns}}}.")
    mapped = {"url": url, "caption": caption}
    if find.column("SAMPLE_ID") is None and (lang := find.column("LANGUAGE")):
        mapped["lang"] = lang
    for name in ("sha256", "md5"):
        if column := find.column(name):
            mapped[f"expected_{name}"] = column
    return mapped


def _document_columns(find: _Finder, wanted: Mapping[str, str]) -> dict[str, str]:
    """The columns of documents: by the mapping, else those of OBELICS or MMC4. Raises MissingColumns.

    - OBELICS, and MINT-1T and OmniCorpus, which follow it: images, texts, metadata, general_metadata
    - MMC4: text_list, image_info, similarity_matrix, url
    """
    if wanted:
        mapped = find.mapping(wanted)
        return {"url": mapped.pop("images"), "caption": mapped.pop("texts"), **mapped}
    images, texts = find.column("images"), find.column("texts")
    if images is not None and texts is not None:
        general = find.column(GENERAL_METADATA)
        return {"url": images, "caption": texts, **({GENERAL_METADATA: general} if general else {})}
    image_info, text_list = find.column("image_info"), find.column("text_list")
    if image_info is not None and text_list is not None:
        page_url = find.column("url")
        return {"url": image_info, "caption": text_list, **({PAGE_URL: page_url} if page_url else {})}
    raise find.error(
        "neither images and texts (OBELICS) nor image_info and text_list (MMC4)",
        "`columns: {images: <column>, texts: <column>}`.",
    )


def _folded(name: str) -> str:
    return name.strip().strip("\ufeff").casefold()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:50])) or "none"
