"""`mmdata releases`, `diff`, `pin` and `unpin` on a real release."""

from __future__ import annotations

import json
from pathlib import Path

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
