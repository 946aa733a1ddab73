"""`mmdata releases`, `verify`, `report`, `diff`, `pin`, `unpin` and `gc` on a real release."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Mmdata, Released


def test_a_pinned_release_is_listed_as_such_with_its_note(released: Released, mmdata: Mmdata) -> None:
    assert mmdata("pin", released.id[:6], "-c", released.config, "--note", "the paper").returncode == 0
    listed = mmdata("releases", "-c", released.config).stdout
    assert mmdata("unpin", released.id, "-c", released.config).returncode == 0
    line = next(line for line in listed.splitlines() if released.id in line)
    assert "latest, pinned" in line and "the paper" in line and " 30 " in line
    assert "pinned" not in mmdata("releases", "-c", released.config).stdout


def test_a_release_compared_with_itself_has_no_difference(released: Released, mmdata: Mmdata, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    done = mmdata("diff", released.id, "latest", "-c", released.config, "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert (counts["added"], counts["dropped"], counts["stayed"]) == (0, 0, 30)
    assert released.id in page.read_text(encoding="utf-8")


def test_collecting_garbage_on_trial_deletes_nothing(released: Released, mmdata: Mmdata) -> None:
    done = mmdata("gc", "-c", released.config, "--dry-run")
    assert done.stdout.startswith("would be deleted: 0.0 MB")
    assert (released.folder / "manifest.json").exists()


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
    assert re.search(r"no release (there|'0123456789abcdef' in)", done.stderr)


def test_before_the_first_release_verify_says_how_to_make_one(tmp_path: Path, mmdata: Mmdata) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: w\nsources: [{name: a, kind: laion, files: x}]\n")
    done = mmdata("verify", "latest", "-c", config)
    assert done.returncode == 2
    assert "mmdata build" in done.stderr


def test_the_report_is_written_again_and_its_path_printed(released: Released, mmdata: Mmdata) -> None:
    page = released.folder / "report.html"
    page.unlink(missing_ok=True)
    done = mmdata("report", "-c", released.config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert page.stat().st_size > 1000
