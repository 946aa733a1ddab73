"""The manifest: what a release is made of. A folder is a release once it holds one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from upath import UPath

from mmdata.config import Corpus
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import canonical_json
from mmdata.secrets import without_credentials
from mmdata.workspace import Workspace, read_json

FORMAT = 1
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
        folder = given.parent / given.read_text().strip()
    elif (given / "releases" / "latest").exists():
        folder = given / "releases" / (given / "releases" / "latest").read_text().strip()
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
    return Release(folder, manifest)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, but for the time it was made and the digest itself."""
    content = {key: value for key, value in manifest.items() if key not in ("created_at", "digest")}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def public_config(corpus: Corpus) -> dict[str, Any]:
    """The corpus as it may be shown: no passwords in URLs."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items()}
        if isinstance(value, list):
            return [clean(one) for one in value]
        return without_credentials(value) if isinstance(value, str) else value

    return clean(corpus.model_dump(mode="json"))
