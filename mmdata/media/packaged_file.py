"""Model weights that registry packages ship: found without importing the package, and checked by sha256."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mmdata.errors import UserError


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside an installed package, known by its sha256.

    Args:
        extra: of mmdata, which installs the package.
    """

    distribution: str
    package: str
    name: str
    sha256: str
    extra: str

    def path(self) -> Path:
        """Where the file lies.

        Raises:
            UserError: the package or the file is absent, or not the pinned one; names it and the remedy.
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
    """Refuse a file that is absent or not the pinned one.

    Raises:
        UserError: names the file, what was found and the remedy.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy}") from None
    if found != sha256:
        raise UserError(f"{path}: sha256 {found} is not the pinned {sha256}: another or damaged file. {remedy}")
