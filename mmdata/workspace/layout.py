"""The workspace: its paths, its catalogue of parts, and the stamps that say what is done.

catalog.json                        source files and the parts cut from them
parts/<part>/<stage>.json           part stamp: accepted or not, slices, digest
parts/<part>/<stage>/<slice>.parquet, .json (slice stamp); media/<slice>-<sha256>.tar
shards/<name>.tar
scores/                             scores beside the cosine, and what they compare with (see mmdata.select.scores)
selection.json                      the draft: the release in the making
takedown/                           opt-out lists and the log of forgotten samples, as hashes
releases/<id>/                      a release, once it holds manifest.json
releases/latest                     the id of the newest release
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.fingerprint import fingerprint
from mmdata.storage.atomic import is_local, publish_bytes, publish_json, withdraw
from mmdata.workspace.json_files import DELETE_IT, MALFORMED, read_derived, read_json

PartStage = Literal["rows", "media", "features"]
PART_STAGES: tuple[PartStage, ...] = ("rows", "media", "features")


TAR_KEY = b"mmdata.tar_sha256"
"""Schema metadata of a media table: SHA-256 of the tar that its offsets point into."""


@dataclass(frozen=True, slots=True)
class Part:
    """A range of rows of one source file: the unit that a person retries.

    Args:
        name: `<source>-<six digits>`; a name is never used twice.
        path: the source file; the part has its rows `start` (inclusive) to `stop` (exclusive).
        digest: SHA-256 of the file's content when it was catalogued.
        removed: the file is gone or no longer has these rows; the part is kept for `explain` and never released.
    """

    name: str
    source: str
    path: str
    start: int
    stop: int
    digest: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class SliceStamp:
    """Says that the table of a slice is whole, and what it was made from.

    Args:
        fingerprint: of the settings, the code version and the slice's input.
        digest: SHA-256 (16 digits) of the published table's content; the next stage's input.
        rows: number of rows of the table.
        counts, reasons, numbers: as in `StageReport`.
        next_retry_at: UTC ISO time from which a re-run has something to retry; None: never.
        deciding: of `media`: the settings that its failures were decided by, by name (see mmdata.engine).
    """

    fingerprint: str
    digest: str
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    next_retry_at: str | None = None
    deciding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartStamp:
    """Says that a stage of a part is whole. It is written last, after all slices.

    Args:
        fingerprint: of the settings, the code version and the part's input; the stage is stale if another is expected.
        digest: of all slice digests; the next stage's input.
        slices: slice names, in order.
        accepted: whether the part may enter a release; if not, `reason` says why.
        opt_out: in the stamp of `rows`: the opt-out that all tables of the part follow; see mmdata.takedown.
        settings: the settings in the fingerprint, by name; empty in stamps of versions that did not keep them.
        deciding: as in `SliceStamp`.
    """

    fingerprint: str
    digest: str
    slices: tuple[str, ...]
    rows: int
    accepted: bool = True
    reason: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    next_retry_at: str | None = None
    opt_out: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    deciding: Mapping[str, Any] = field(default_factory=dict)


class FileEntry(TypedDict):
    """The catalogue's entry of one source file, as catalog.json holds it.

    Args:
        source: name of the source in corpus.yaml.
        bytes: size; None if the file could not be read.
        seen: modification time in ns, or the ETag on an object store; None if the file could not be read.
        reading: fingerprint of the reader and of the settings by which rows were counted.
        digest: names the content; None if the file was never read.
        status: ok | empty | unreadable; `error` says why it is not ok.
        lacks_columns: the file is not damaged, but has no URL or caption column.
        offsets: the byte at which each part begins, for text files.
        captions: state of the timed captions that belong to the file, by sizes and times of change.
        captions_digest: names the content of these captions.
        parts: names of the parts that the file is cut into.
    """

    source: str
    bytes: int | None
    seen: str | None
    reading: str
    digest: str | None
    rows: int
    status: str
    error: str | None
    lacks_columns: bool
    offsets: list[int]
    captions: NotRequired[str]
    captions_digest: NotRequired[str]
    parts: NotRequired[list[str]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The source files, and the parts cut from them.

    Args:
        files: path -> entry.
        parts: name -> Part, in the order in which they were first seen.
    """

    files: Mapping[str, FileEntry] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    def live_parts(self) -> list[Part]:
        """The parts whose rows still exist, which a build works on."""
        return [part for part in self.parts.values() if not part.removed]


class Workspace:
    """Paths and stamps under one root, local or on an object store."""

    def __init__(self, root: str | UPath) -> None:
        path = UPath(root)
        # an object store's client caches listings, and another process may have written since
        self.root = path if is_local(path) else UPath(path, use_listings_cache=False)

    @property
    def catalog_path(self) -> UPath:
        return self.root / "catalog.json"

    def part_dir(self, part: str) -> UPath:
        return self.root / "parts" / part

    def table(self, part: str, stage: PartStage, slice_name: str) -> UPath:
        """The Parquet table of a slice."""
        return self.part_dir(part) / stage / f"{slice_name}.parquet"

    def media_tar(self, part: str, slice_name: str, metadata: Mapping[bytes, bytes] | None) -> UPath:
        """The tar that a slice's media table addresses.

        It is named by its content. A new fetch writes another tar beside it, so that a reader of the old table still
        finds the old tar.

        Args:
            metadata: the schema metadata of that table.
        """
        digest = (metadata or {}).get(TAR_KEY, b"").decode()
        return self.part_dir(part) / "media" / media_tar_name(slice_name, digest)

    @property
    def shards_dir(self) -> UPath:
        return self.root / "shards"

    @property
    def scores_dir(self) -> UPath:
        """Scores that the selection computed from kept vectors, the bank, and target sets."""
        return self.root / "scores"

    @property
    def releases_dir(self) -> UPath:
        return self.root / "releases"

    def release_dir(self, release_id: str) -> UPath:
        return self.releases_dir / release_id

    @property
    def draft_path(self) -> UPath:
        """`selection.json`, which names the release in the making; the publish stages read it."""
        return self.root / "selection.json"

    # -- catalog and stamps -------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The catalogue; empty before the sources were first read."""
        data = read_json(self.catalog_path)
        if data is None:
            return Catalog()
        try:
            return Catalog(files=data["files"], parts={name: Part(**part) for name, part in data["parts"].items()})
        except MALFORMED as error:
            raise DataError(f"{self.catalog_path}: not a catalogue ({error!r}). {DELETE_IT}") from None

    def write_catalog(self, catalog: Catalog) -> None:
        publish_json(
            self.catalog_path,
            {"files": dict(catalog.files), "parts": {name: asdict(part) for name, part in catalog.parts.items()}},
        )

    def part(self, name: str) -> Part:
        """A part by name. Raises UserError if the catalogue has no such part."""
        try:
            return self.catalog().parts[name]
        except KeyError:
            raise UserError(f"no part {name!r} in {self.catalog_path}; `mmdata status` lists the parts") from None

    def slice_stamp(self, part: str, stage: PartStage, slice_name: str) -> SliceStamp | None:
        """The stamp of a slice; None if it is not finished, or its stamp is damaged."""
        return read_derived(self._slice_stamp_path(part, stage, slice_name), lambda data: SliceStamp(**data))

    def write_slice_stamp(self, part: str, stage: PartStage, slice_name: str, stamp: SliceStamp) -> None:
        publish_json(self._slice_stamp_path(part, stage, slice_name), asdict(stamp))

    def clear_slice_stamp(self, part: str, stage: PartStage, slice_name: str) -> None:
        """Delete a slice's stamp, before its table is replaced."""
        withdraw(self._slice_stamp_path(part, stage, slice_name))

    def part_stamp(self, part: str, stage: PartStage) -> PartStamp | None:
        """The stamp of a part; None if it is not finished, or its stamp is damaged."""
        path = self.part_dir(part) / f"{stage}.json"
        return read_derived(path, lambda data: PartStamp(**{**data, "slices": tuple(data["slices"])}))

    def write_part_stamp(self, part: str, stage: PartStage, stamp: PartStamp) -> None:
        publish_json(self.part_dir(part) / f"{stage}.json", asdict(stamp))

    def clear_part_stamp(self, part: str, stage: PartStage) -> None:
        """Delete a part's stamp, because it is no longer true."""
        withdraw(self.part_dir(part) / f"{stage}.json")

    def forget_stage(self, part: str, stage: PartStage) -> None:
        """Delete a stage's stamps and tables of a part, so that the next run makes them again.

        Stamps are deleted first: tables that are left after a kill then count for nothing.
        """
        self.clear_part_stamp(part, stage)
        folder = self.part_dir(part) / stage
        for pattern in ("*.json", "*.parquet"):
            withdraw(*(sorted(folder.glob(pattern)) if folder.exists() else ()))

    def forget_slice(self, part: str, stage: PartStage, slice_name: str) -> None:
        """Delete a slice's stamp and table, so that the next run does the slice again.

        The table of media stays: the next run uses again what is sound of the media that it addresses.
        """
        self.clear_part_stamp(part, stage)
        self.clear_slice_stamp(part, stage, slice_name)
        if stage != "media":
            withdraw(self.table(part, stage, slice_name))

    def _slice_stamp_path(self, part: str, stage: PartStage, slice_name: str) -> UPath:
        return self.part_dir(part) / stage / f"{slice_name}.json"

    # -- releases -----------------------------------------------------------------------------------------------

    def latest(self) -> str | None:
        """The id of the newest release; None before the first one."""
        try:
            return (self.releases_dir / "latest").read_text().strip() or None
        except FileNotFoundError:
            return None

    def set_latest(self, release_id: str) -> None:
        publish_bytes(self.releases_dir / "latest", f"{release_id}\n".encode())

    def releases(self) -> list[str]:
        """Ids of the published releases (those with a manifest), sorted by id."""
        if not self.releases_dir.exists():
            return []
        return sorted(d.name for d in self.releases_dir.iterdir() if (d / "manifest.json").exists())


def part_digest(digests: Mapping[str, str]) -> str:
    """The digest of a part's stage, from the digests of its slices."""
    return fingerprint(dict(digests))


def media_tar_name(slice_name: str, tar_sha256: str) -> str:
    """The file name of a slice's tar with this SHA-256."""
    return f"{slice_name}-{tar_sha256[:12]}.tar" if tar_sha256 else f"{slice_name}.tar"


def split_media_tar_name(name: str) -> tuple[str, str]:
    """The slice and the first digits of the SHA-256 in the file name of a slice's tar; no digits in old names."""
    slice_name, _, digits = name.removesuffix(".tar").partition("-")
    return slice_name, digits


def redo_remedy(part: str, stage: PartStage, slice_name: str | None = None) -> str:
    """The remedy for a damaged or missing table or tar: the command that makes it again."""
    return f"Remedy: `mmdata build --redo {':'.join(filter(None, (part, stage, slice_name)))}`."
