"""The workspace: where everything lies, which parts there are, and the stamps that say what is done.

catalog.json                        source files and the parts cut from them
parts/<part>/<stage>.json           part stamp: accepted or not, slices, digest
parts/<part>/<stage>/<slice>.parquet, .json (slice stamp); media/<slice>-<sha256>.tar
shards/<name>.tar
selection.json                      the release in the making
takedown/                           what is left out: standing lists, the log of what was forgotten; hashes only
releases/<id>/                      a release, once it holds manifest.json
releases/latest                     the id of the newest
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.fingerprint import fingerprint
from mmdata.storage.atomic import is_local, publish_bytes, publish_json, withdraw

PartStage = Literal["rows", "media", "features"]
PART_STAGES: tuple[PartStage, ...] = ("rows", "media", "features")


TAR_KEY = b"mmdata.tar_sha256"
"""Schema metadata of a media table: SHA-256 of the tar that its offsets count in."""


@dataclass(frozen=True, slots=True)
class Part:
    """A range of rows of one source file: what a person retries.

    Args:
        name: `<source>-<six digits>`; never given twice.
        path: the source file; rows `start` (inclusive) to `stop` (exclusive) of it.
        digest: SHA-256 of the file's content when it was catalogued.
        removed: the file is gone or no longer has these rows; kept for `explain`, never released.
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
    """Says that a slice of a stage is whole, and what it was made from.

    Args:
        fingerprint: of the settings, the code version and the slice's input.
        digest: SHA-256 (16 digits) of the published table's content; the next stage's input.
        rows: rows of the table.
        counts, reasons, numbers: as in `StageReport`.
        next_retry_at: UTC ISO time from which a re-run has something to retry; None: never.
    """

    fingerprint: str
    digest: str
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    next_retry_at: str | None = None


@dataclass(frozen=True, slots=True)
class PartStamp:
    """Says that a stage of a part is whole: written last, after all its slices.

    Args:
        fingerprint: of the settings, the code version and the part's input; equal to the expected one: not stale.
        digest: of all slice digests; the next stage's input.
        slices: slice names, in order.
        accepted: may enter a release; if not, `reason` says why.
        opt_out: of `rows`, names the opt-out that is in force in all tables of the part; see mmdata.takedown.
        settings: what `fingerprint` says of the settings, by name; empty in stamps of before they were kept.
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


@dataclass(frozen=True, slots=True)
class Catalog:
    """Which source files there are, and the parts cut from them.

    Args:
        files: path -> {source, digest, bytes, mtime or etag, rows, status: ok | empty | unreadable, error, parts}.
        parts: name -> Part, in the order they were first seen.
    """

    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    def live_parts(self) -> list[Part]:
        """The parts that a build works on."""
        return [part for part in self.parts.values() if not part.removed]


class Workspace:
    """Paths and stamps under one root, local or on an object store."""

    def __init__(self, root: str | UPath) -> None:
        path = UPath(root)
        # an object store's client remembers what it has listed; another process may have written since
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

        It is named by its content: a re-fetch makes another one beside it, so that whoever has read the table finds
        what it addresses.

        Args:
            metadata: the schema metadata of that very table.
        """
        digest = (metadata or {}).get(TAR_KEY, b"").decode()
        return self.part_dir(part) / "media" / media_tar_name(slice_name, digest)

    @property
    def shards_dir(self) -> UPath:
        return self.root / "shards"

    @property
    def releases_dir(self) -> UPath:
        return self.root / "releases"

    def release_dir(self, release_id: str) -> UPath:
        return self.releases_dir / release_id

    @property
    def draft_path(self) -> UPath:
        """`selection.json`: names the release in the making; the publish stages read it."""
        return self.root / "selection.json"

    # -- catalog and stamps -------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The catalogue; an empty one before the first look at the sources."""
        data = read_json(self.catalog_path)
        if data is None:
            return Catalog()
        return Catalog(files=data["files"], parts={name: Part(**part) for name, part in data["parts"].items()})

    def write_catalog(self, catalog: Catalog) -> None:
        publish_json(
            self.catalog_path,
            {"files": dict(catalog.files), "parts": {name: asdict(part) for name, part in catalog.parts.items()}},
        )

    def part(self, name: str) -> Part:
        """A part by name. Raises UserError where the catalogue has none of that name."""
        try:
            return self.catalog().parts[name]
        except KeyError:
            raise UserError(f"no part {name!r} in {self.catalog_path}; `mmdata status` lists the parts") from None

    def slice_stamp(self, part: str, stage: PartStage, slice_name: str) -> SliceStamp | None:
        data = read_json(self._slice_stamp_path(part, stage, slice_name))
        return None if data is None else SliceStamp(**data)

    def write_slice_stamp(self, part: str, stage: PartStage, slice_name: str, stamp: SliceStamp) -> None:
        publish_json(self._slice_stamp_path(part, stage, slice_name), asdict(stamp))

    def clear_slice_stamp(self, part: str, stage: PartStage, slice_name: str) -> None:
        """Take a slice's stamp away, before something that it vouches for is replaced."""
        withdraw(self._slice_stamp_path(part, stage, slice_name))

    def part_stamp(self, part: str, stage: PartStage) -> PartStamp | None:
        data = read_json(self.part_dir(part) / f"{stage}.json")
        return None if data is None else PartStamp(**{**data, "slices": tuple(data["slices"])})

    def write_part_stamp(self, part: str, stage: PartStage, stamp: PartStamp) -> None:
        publish_json(self.part_dir(part) / f"{stage}.json", asdict(stamp))

    def clear_part_stamp(self, part: str, stage: PartStage) -> None:
        """Take a part's stamp away: what it said is no longer true."""
        withdraw(self.part_dir(part) / f"{stage}.json")

    def forget_stage(self, part: str, stage: PartStage) -> None:
        """Take away a stage's stamps and tables of a part, so that the next run makes them anew.

        Stamps go first: what is left after a kill is vouched for by nothing.
        """
        self.clear_part_stamp(part, stage)
        folder = self.part_dir(part) / stage
        for pattern in ("*.json", "*.parquet"):
            withdraw(*(sorted(folder.glob(pattern)) if folder.exists() else ()))

    def _slice_stamp_path(self, part: str, stage: PartStage, slice_name: str) -> UPath:
        return self.part_dir(part) / stage / f"{slice_name}.json"

    # -- releases -----------------------------------------------------------------------------------------------

    def latest(self) -> str | None:
        """The id of the newest release, or None before the first."""
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

    def draft(self) -> dict[str, Any]:
        """What `selection.json` says. Raises DataError before the first selection."""
        data = read_json(self.draft_path)
        if data is None:
            raise DataError(f"{self.draft_path}: nothing is selected yet. Remedy: materialise `selection` first.")
        return data


def read_json(path: UPath) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file. Raises DataError, naming the file, where it is no JSON."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid JSON ({error}). Remedy: delete it; the stage that writes it runs again."
        ) from None
    if not isinstance(data, dict):
        raise DataError(
            f"{path}: expected a JSON object, found {type(data).__name__}. Remedy: delete it and run again."
        )
    return data


def part_digest(digests: Mapping[str, str]) -> str:
    """The digest of a part's stage from its slices' digests."""
    return fingerprint(dict(digests))


def media_tar_name(slice_name: str, tar_sha256: str) -> str:
    """The file name of a slice's tar with this SHA-256."""
    return f"{slice_name}-{tar_sha256[:12]}.tar" if tar_sha256 else f"{slice_name}.tar"
