"""Index folders are published whole, once."""

from __future__ import annotations

from pathlib import Path

from training.data.index_cache import publish_folder


def test_who_publishes_a_folder_second_throws_his_own_away(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def fill(folder: Path) -> None:
        (folder / "done.json").write_text("second")
        if not target.exists():
            publish_folder(target, lambda other: (other / "done.json").write_text("first"))

    publish_folder(target, fill)
    assert (target / "done.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]
