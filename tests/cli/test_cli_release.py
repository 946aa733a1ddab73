"""`mmdata verify` and `mmdata report` on a real release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workspaces import Built, build, release


@pytest.fixture
def released(tmp_path: Path) -> tuple[Built, str, Path]:
    """A release of thirty samples, its id and its corpus.yaml."""
    built = build(str(tmp_path / "workspace"), {"web-000000": range(30)})
    config = tmp_path / "corpus.yaml"
    config.write_text(yaml.safe_dump(built.corpus.model_dump(mode="json", exclude_none=True)))
    return built, release(built), config


def test_a_sound_release_verifies_by_id_by_latest_and_by_folder(released: Any, mmdata: Any) -> None:
    built, release_id, config = released
    for name in (release_id, "latest"):
        done = mmdata("verify", name, "-c", config)
        assert done.returncode == 0, done.stderr
        assert "30 samples" in done.stdout
    assert mmdata("verify", built.workspace.release_dir(release_id)).returncode == 0  # needs no corpus.yaml


def test_one_changed_byte_is_found_and_its_shard_named(released: Any, mmdata: Any) -> None:
    built, release_id, config = released
    shard = min(Path(built.workspace.shards_dir.path).glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = mmdata("verify", release_id, "-c", config)
    assert done.returncode == 1
    assert shard.name in done.stderr
    assert "Traceback" not in done.stderr


def test_report_is_written_again_and_its_place_printed(released: Any, mmdata: Any) -> None:
    built, release_id, config = released
    page = Path(built.workspace.release_dir(release_id).path) / "report.html"
    page.unlink(missing_ok=True)
    done = mmdata("report", "-c", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert page.stat().st_size > 1000


@pytest.mark.parametrize("name", ["0123456789abcdef", "./nowhere"])
def test_a_release_that_is_not_there_is_a_user_error(released: Any, mmdata: Any, name: str) -> None:
    done = mmdata("verify", name, "-c", released[2])
    assert done.returncode == 2
    assert "no release there" in done.stderr


def test_before_the_first_release_verify_says_how_to_make_one(tmp_path: Path, mmdata: Any) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: w\nsources: [{name: a, kind: laion, files: x}]\n")
    done = mmdata("verify", "latest", "-c", config)
    assert done.returncode == 2
    assert "mmdata build" in done.stderr
