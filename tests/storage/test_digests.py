"""Digests beside files: a changed byte is named, and `sha256sum` reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mmdata.storage.digests import changed_file, write_digests


def test_a_flipped_byte_of_equal_length_is_named(tmp_path: Path) -> None:
    files = [tmp_path / "a.bin", tmp_path / "b.bin"]
    for file in files:
        file.write_bytes(b"weights")
    write_digests(files)
    assert changed_file(files) is None
    subprocess.run(["sha256sum", "--quiet", "-c", "a.bin.sha256", "b.bin.sha256"], cwd=tmp_path, check=True)
    files[1].write_bytes(b"weightz")
    assert changed_file(files) == f"{files[1]}: its bytes have changed since it was written"
    files[1].unlink()
    assert changed_file(files) == f"{files[1]} is missing"


def test_a_file_without_a_digest_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "old.bin").write_bytes(b"weights")
    assert changed_file([tmp_path / "old.bin", tmp_path / "never.bin"]) is None
