"""`mmdata verify` on a real release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Mmdata, Released


def test_a_sound_release_verifies_by_id_by_latest_and_by_folder(released: Released, mmdata: Mmdata) -> None:
    for name in (released.id, "latest"):
        done = mmdata("verify", name, "-c", released.config)
        assert done.returncode == 0, done.stderr
        assert "30 samples" in done.stdout
    assert mmdata("verify", released.folder).returncode == 0  # a folder needs no corpus.yaml


def test_one_changed_byte_is_found_and_its_shard_named(released: Released, mmdata: Mmdata) -> None:
    shard = min(Path(released.built.workspace.shards_dir.path).glob("*.tar"))
    sound = shard.read_bytes()
    changed = bytearray(sound)
    changed[len(changed) // 2] ^= 1
    try:
        shard.write_bytes(changed)
        done = mmdata("verify", released.id, "-c", released.config)
    finally:
        shard.write_bytes(sound)
    assert done.returncode == 1
    assert shard.name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["0123456789abcdef", "./nowhere"])
def test_a_release_that_is_not_there_is_a_user_error(released: Released, mmdata: Mmdata, name: str) -> None:
    done = mmdata("verify", name, "-c", released.config)
    assert done.returncode == 2
    assert "no release there" in done.stderr


def test_before_the_first_release_verify_says_how_to_make_one(tmp_path: Path, mmdata: Mmdata) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: w\nsources: [{name: a, kind: laion, files: x}]\n")
    done = mmdata("verify", "latest", "-c", config)
    assert done.returncode == 2
    assert "mmdata build" in done.stderr
