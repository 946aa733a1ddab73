"""Fingerprints depend on the values alone, and refuse what has no plain form."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mmdata.config import Clips
from mmdata.fingerprint import canonical_json, file_sha256, fingerprint


def test_the_order_of_keys_and_of_sets_does_not_matter() -> None:
    assert fingerprint({"a": 1, "b": {2, 3}}) == fingerprint({"b": {3, 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint("a", "b") != fingerprint("ab")
    assert len(fingerprint()) == 16


def test_a_model_counts_by_its_values() -> None:
    assert fingerprint(Clips()) == fingerprint(Clips(frames=Clips().frames))
    assert fingerprint(Clips()) != fingerprint(Clips(frames=Clips().frames + 1))


def test_json_is_sorted_and_dense_and_keeps_letters() -> None:
    assert canonical_json({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'
    with pytest.raises(TypeError, match="Path cannot be fingerprinted"):
        canonical_json(Path("a"))


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"words" * 100_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
