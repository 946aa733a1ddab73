"""The state of the opt-out: when its digest changes, and what its first number tells."""

from __future__ import annotations

from pathlib import Path

from upath import UPath

from mmdata.config import OptOutList
from mmdata.optout.forget_log import Entry, append
from mmdata.optout.lists import update_standing
from mmdata.optout.state import opt_out_digest, standing_path, standing_table
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace


def test_the_digest_follows_lists_and_log_and_counts_removed_entries(tmp_path: Path) -> None:
    workspace = Workspace(UPath(tmp_path / "workspace"))
    assert opt_out_digest(workspace) == ""
    path = tmp_path / "list.txt"
    lists = [OptOutList(path=str(path))]
    digests = []
    for text in ("a.example.org\n", "a.example.org\nb.example.org\n", "b.example.org\n"):
        path.write_text(text)
        update_standing(lists, workspace)
        digests.append(opt_out_digest(workspace))
    assert [digest.partition("-")[0] for digest in digests] == ["0", "0", "1"], "one entry was removed"
    assert len(set(digests)) == 3
    standing = read_json(standing_path(workspace)) or {}
    assert standing_table(workspace, standing["digest"]).exists()
    append(workspace, Entry(number=0, what="forget", at="", by="Ada", hashes="0" * 16))
    assert opt_out_digest(workspace) not in digests
    after_forget = opt_out_digest(workspace)
    append(workspace, Entry(number=0, what="done", at="", by="Ada", of=1))
    assert opt_out_digest(workspace) == after_forget, "that a takedown is finished changes nothing to leave out"
