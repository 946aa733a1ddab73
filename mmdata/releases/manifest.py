"""The manifest: lists what a release is made of. A folder is a release as soon as it holds a manifest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from mmdata.config import Corpus
from mmdata.display import without_credentials
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import canonical_json
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

FORMAT = 2
"""Format of a new release. In format 1 the `.json` of a sample left out unknown facts, and `extra` was an object;
since format 2 it follows `mmdata.shards.facts.FACTS`."""
FORMAT_WITH_CAPTIONS = 3
"""Format of a new release with generated captions: its manifest has the key `captioners`, the `.json` of a sample the
keys of `mmdata.shards.facts.CAPTION_FACTS` besides, and its index the column `generated_tokens`."""
READABLE_FORMATS = (1, 2, 3)
_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._+-]{1,200}")
REQUIRED = (
    *("format", "release_id", "inputs", "parent", "created_at", "config", "scorer", "counts", "reasons"),
    *("signatures", "cohorts", "shards", "files", "digest"),
)


DAMAGED_REMEDY = (
    "Remedy: `mmdata build --redo release` makes the latest release again; restore an older one from a copy, or delete "
    "its folder."
)


@dataclass(frozen=True, slots=True)
class Release:
    """A published release.

    Args:
        folder: `<workspace>/releases/<id>`.
        manifest: the content of its manifest.json, with all required keys.
    """

    folder: UPath
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.manifest["release_id"])

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder.parent.parent)


def open_release(path: str | UPath) -> Release:
    """Open a release, given its folder, `releases/latest`, or a workspace (whose latest release is meant).

    Raises:
        UserError: there is no release at the path.
        DataError: the manifest is broken, or has a newer format.
    """
    folder = given = UPath(path)
    if given.name == "latest" and given.is_file():
        folder = given.parent / _check_name(given.read_text().strip(), given)
    elif (given / "releases" / "latest").exists():
        latest = given / "releases" / "latest"
        folder = given / "releases" / _check_name(latest.read_text().strip(), latest)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{given}: no release there (no manifest.json). "
            "Remedy: give a folder under releases/, releases/latest, or a workspace."
        )
    if manifest["format"] not in READABLE_FORMATS:
        readable = ", ".join(map(str, READABLE_FORMATS))
        raise DataError(
            f"{folder / 'manifest.json'}: format {manifest['format']}; this mmdata reads the formats {readable}. "
            "Remedy: update mmdata."
        )
    names = [manifest["release_id"], *(shard["name"] for shard in manifest["shards"])]
    for name in (*map(str, names), *(name for path in manifest["files"] for name in str(path).split("/"))):
        _check_name(name, folder / "manifest.json")
    return Release(folder, manifest)


def find_manifest(workspace: Workspace, release_id: str | None) -> dict[str, Any] | None:
    """The manifest of a release by its id; None without an id, or if there is no such release.

    Raises:
        DataError: it is damaged.
    """
    return read_manifest(workspace.release_dir(release_id)) if release_id else None


def read_manifest(folder: UPath) -> dict[str, Any] | None:
    """The manifest in the folder of a release; None if there is none. Raises DataError if it is damaged."""
    path = folder / "manifest.json"
    manifest = read_json(path, DAMAGED_REMEDY)
    if manifest is not None and (missing := [key for key in REQUIRED if key not in manifest]):
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; it is broken, or was not written by mmdata. {DAMAGED_REMEDY}"
        )
    return manifest


def has_captions(manifest: Mapping[str, Any]) -> bool:
    """Whether a release was made with generated captions."""
    return "captioners" in manifest


def is_empty(manifest: Mapping[str, Any]) -> bool:
    """Whether a release has no sample."""
    return not any(shard["samples"] for shard in manifest["shards"])


def _check_name(name: str, file: UPath) -> str:
    """Return a name that was read from a file, if it cannot lead out of its folder."""
    if not _NAME.fullmatch(name):
        raise DataError(f"{file}: {name[:200]!r} is no plain name: the file is broken, or not to be trusted")
    return name


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, without the time of creation and the digest itself."""
    content = {key: value for key, value in manifest.items() if key not in ("created_at", "digest")}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def public_config(corpus: Corpus) -> dict[str, Any]:
    """The settings of a corpus without secrets: no passwords in URLs or headers, and no addresses for alerts."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return without_credentials(value) if isinstance(value, str) else value

    settings: dict[str, Any] = clean(corpus.model_dump(mode="json", exclude={"alerts"}))
    headers = settings["download"]["headers"]
    headers.update({name: "…" for name in headers if corpus.download.is_secret_header(name)})
    return settings
