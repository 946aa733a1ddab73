"""`mmdata explain` on a built corpus."""

from __future__ import annotations

import polars as pl
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.samples import sample_uid
from mmdata.workspace.layout import Workspace
from tests.cli.conftest import Mmdata
from tests.support.standin_stages import Small

UID = sample_uid("http://example.org/a-red-boat.jpg", "a red boat")


def test_explain_prints_the_story(small: Small, mmdata: Mmdata) -> None:
    small.build()
    done = mmdata("explain", UID[:10], "-c", small.config_path)
    assert done.returncode == 0, done.stderr
    for word in (UID, "a red boat", "part web-000000", "clip_score", "1x, split train"):
        assert word in done.stdout


def test_markup_in_a_caption_is_printed_and_not_obeyed(small: Small) -> None:
    caption = "[red]not markup[/red] [link=http://x.org]x[/link]"
    small.write("a.txt", caption)
    small.build()
    rows = small.workspace.table("web-000000", "rows", "0000")
    uid = pl.read_parquet(str(rows))["uid"][0]
    shown = CliRunner().invoke(app, ["explain", uid, "-c", str(small.config_path)])
    assert caption in shown.output.replace("\n", "")


def test_explain_of_an_unknown_uid_is_a_user_error(small: Small, mmdata: Mmdata) -> None:
    small.build()
    done = mmdata("explain", "0" * 32, "-c", small.config_path)
    assert done.returncode == 2
    assert Workspace(small.corpus.workspace).root.path in done.stderr
