"""The manifest: what a release is made of. A folder is a release once it holds one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from upath import UPath

from mmdata.config import Corpus
from mmdata.display import without_credentials
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import canonical_json
from mmdata.workspace.layout import Workspace, read_json

FORMAT = 1
_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._+-]{1,200}")
REQUIRED = (
    *("format", "release_id", "inputs", "parent", "created_at", "config", "scorer", "counts", "reasons"),
    *("signatures", "cohorts", "shards", "files", "digest"),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A published release, opened.

    Args:
        folder: `<workspace>/releases/<id>`.
        manifest: its manifest, checked for its form.
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
    """Open a release by its folder, by `releases/latest`, or by its workspace (then the newest).

    Raises:
        UserError: there is no release at the path.
        DataError: its manifest is broken, or of a newer format.
    """
    given = UPath(path)
    folder = given
    if given.name == "latest" and given.is_file():
        folder = given.parent / plain_name(given.read_text().strip(), given)
    elif (given / "releases" / "latest").exists():
        latest = given / "releases" / "latest"
        folder = given / "releases" / plain_name(latest.read_text().strip(), latest)
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        raise UserError(
            f"{given}: no release there (no manifest.json). "
            "Give a folder under releases/, releases/latest, or a workspace."
        )
    if missing := [key for key in REQUIRED if key not in manifest]:
        raise DataError(f"{folder / 'manifest.json'}: lacks {', '.join(missing)}; it is broken or not ours")
    if manifest["format"] != FORMAT:
        raise DataError(f"{folder / 'manifest.json'}: format {manifest['format']}; this mmdata reads format {FORMAT}")
    _check_names(manifest, folder / "manifest.json")
    return Release(folder, manifest)


def plain_name(name: str, where: UPath, may_have_folders: bool = False) -> str:
    """A name out of a file, if it leads to no other place. Raises DataError, naming the file."""
    pieces = name.split("/") if may_have_folders else [name]
    if not all(_NAME.fullmatch(piece) for piece in pieces):
        raise DataError(f"{where}: {name[:200]!r} is no plain name: the file is broken, or not to be trusted")
    return name


def _check_names(manifest: dict[str, Any], where: UPath) -> None:
    plain_name(str(manifest["release_id"]), where)
    for shard in manifest["shards"]:
        plain_name(str(shard["name"]), where)
    for name in manifest["files"]:
        plain_name(str(name), where, may_have_folders=True)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, but for the time it was made and the digest itself."""
    content = {key: value for key, value in manifest.items() if key not in ("created_at", "digest")}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def public_config(corpus: Corpus) -> dict[str, Any]:
    """The corpus as it may be shown: no passwords in URLs, and not who is told of failures."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items()}
        if isinstance(value, list):
            return [clean(one) for one in value]
        return without_credentials(value) if isinstance(value, str) else value

    return clean(corpus.model_dump(mode="json", exclude={"alerts"}))
