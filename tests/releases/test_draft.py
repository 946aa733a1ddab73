"""The draft: it comes back as it was written, is refused when it is out of date, and equal inputs give equal ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.engine.freshness import releasable_parts
from mmdata.errors import DataError
from mmdata.releases.draft import Draft, check_draft, find_draft, plan_release, read_draft, write_draft
from mmdata.select.stage import select_samples
from mmdata.workspace.layout import Workspace
from tests.support.workspaces import build, corpus_of, release

PARTS = {"web-000000": range(8)}


def test_a_draft_comes_back_and_is_not_written_twice(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    assert find_draft(workspace) is None
    with pytest.raises(DataError, match=r"selection\.json: nothing is selected yet\. Remedy: `mmdata build`"):
        read_draft(workspace)
    draft = Draft("0a", "0b", None, ("web-000000",), {"web-000001": "2% fetched"}, {"kept": 1}, {"filter:words": 2})
    write_draft(workspace, draft)
    assert read_draft(workspace) == draft
    before = (tmp_path / "selection.json").stat()
    write_draft(workspace, draft)
    assert (tmp_path / "selection.json").stat().st_mtime_ns == before.st_mtime_ns


def test_a_draft_is_refused_after_a_setting_or_a_part_has_changed(tmp_path: Path) -> None:
    built = build(str(tmp_path), PARTS)
    select_samples(built.corpus, built.workspace)
    assert check_draft(built.corpus, built.workspace) == read_draft(built.workspace)
    with pytest.raises(DataError, match=r"has changed since .* Remedy: `mmdata build`"):
        check_draft(corpus_of(str(tmp_path), seed=1), built.workspace)
    built.workspace.clear_part_stamp("web-000000", "media")
    with pytest.raises(DataError, match=r"part web-000000: the stamp of media is gone\. Remedy: `mmdata build`"):
        check_draft(built.corpus, built.workspace)


def test_the_next_release_is_the_latest_one_while_nothing_that_decides_changes(tmp_path: Path) -> None:
    built = build(str(tmp_path), PARTS)
    first = release(built)
    parts, _ = releasable_parts(built.corpus, built.workspace)
    same = plan_release(built.corpus, built.workspace, parts)
    assert (same.release_id, same.published) == (first, True)
    faster = corpus_of(str(tmp_path), engine={"workers": 4})
    assert plan_release(faster, built.workspace, parts) == same, "speed decides nothing"
    other = plan_release(corpus_of(str(tmp_path), seed=1), built.workspace, parts)
    assert other.release_id != first
    assert (other.parent, other.published) == (first, False)


@pytest.mark.parametrize("content", ['{"release_id": "0a", "parts": []}', "{}", "[]", '{"release', ""])
def test_a_damaged_draft_counts_as_none_and_is_written_again(tmp_path: Path, content: str) -> None:
    built = build(str(tmp_path), PARTS)
    select_samples(built.corpus, built.workspace)
    draft = check_draft(built.corpus, built.workspace)
    built.workspace.draft_path.write_text(content)
    with pytest.raises(DataError, match=r"selection\.json: nothing is selected yet"):
        check_draft(built.corpus, built.workspace)
    select_samples(built.corpus, built.workspace)
    assert check_draft(built.corpus, built.workspace) == draft
