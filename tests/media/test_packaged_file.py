"""Files inside installed packages are found without importing these, and are refused if they are other files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.media.packaged_file import PackagedFile


def test_the_pinned_file_is_found_and_any_other_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packaged_stand_in"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = PackagedFile("stand-in", "packaged_stand_in", "model.bin", hashlib.sha256(b"model").hexdigest(), "demo")
    with pytest.raises(UserError, match=r"model\.bin: cannot be read .*mmdata\[demo\]"):
        file.path()
    (package / "model.bin").write_bytes(b"model")
    assert file.path() == package / "model.bin"
    (package / "model.bin").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.bin: sha256 .* is not the pinned .*mmdata\[demo\]"):
        file.path()


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(UserError, match=r"the package nowhere-at-all is not installed.*mmdata\[demo\]"):
        PackagedFile("nowhere-at-all", "nowhere_at_all", "x", "0" * 64, "demo").path()
