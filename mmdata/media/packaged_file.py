"""Finds files (model weights) inside installed packages, without importing these, and checks their SHA-256."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mmdata.errors import UserError
from mmdata.fingerprint import file_sha256


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside an installed package, pinned by its SHA-256.

    Args:
        distribution: name of the package at the registry.
        package: name that it is imported by.
        name: path of the file within the package.
        extra: the extra of mmdata that installs the package.
    """

    distribution: str
    package: str
    name: str
    sha256: str
    extra: str

    def path(self) -> Path:
        """The file's path, after a check of its SHA-256.

        Raises:
            UserError: the package or the file is missing, or the file is not the pinned one.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"the package {self.distribution} is not installed. Remedy: pip install 'mmdata[{self.extra}]'"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / self.name
        check_sha256(path, self.sha256, f"Remedy: `pip install --force-reinstall 'mmdata[{self.extra}]'`.")
        return path


def check_sha256(path: Path, sha256: str, remedy: str) -> None:
    """Raise UserError if a file is missing or its SHA-256 is not the pinned one.

    Args:
        remedy: the last sentence of the error's text.
    """
    try:
        actual_sha256 = file_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy}") from None
    if actual_sha256 != sha256:
        raise UserError(
            f"{path}: sha256 {actual_sha256} is not the pinned {sha256}: it is another file, or it is damaged. {remedy}"
        )
