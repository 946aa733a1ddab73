"""`mmdata status` and `mmdata explain` on a built corpus."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.inspect.progress import duration
from mmdata.samples import sample_uid
from mmdata.workspace.attempts import begin_attempt
from mmdata.workspace.layout import Workspace
from tests.support.standin_stages import Small

UID = sample_uid("http://example.org/a-red-boat.jpg", "a red boat")


def test_status_lists_parts_failures_and_the_release(small: Small, mmdata: Any) -> None:
    small.write("c.txt", "fine", "boom")
    assert small.build() == ["web-000002"]
    done = mmdata("status", "-c", small.config_path)
    assert done.returncode == 0, done.stderr
    assert "3 parts, 2 ready for a release" in done.stdout
    first = next(line for line in done.stdout.splitlines() if line.startswith("web-"))
    assert first.split()[:4] == ["web-000002", "2", "done", "waiting"]  # what needs a look comes first
    assert str(small.workspace.latest()) in done.stdout


def test_status_as_json_has_what_a_machine_asks_for(small: Small, mmdata: Any) -> None:
    small.write("c.txt", "boom")
    small.build()
    begin_attempt(small.workspace, "web-000002", "media")
    done = mmdata("status", "-c", small.config_path, "--json", "--disk", "--hosts", "3")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["parts"], told["ready"], told["states"]["media"]) == (3, 2, {"done": 2, "started": 1})
    assert told["not_ready"][0]["part"] == "web-000002"
    assert told["stuck"][0]["advice"].startswith("its process died")
    assert told["release"]["release_id"] == small.workspace.latest()
    assert told["disk"]["rows tables"]["files"] == 4
    assert told["hosts"]["looked_at"] == 3


def test_status_names_what_is_stuck_and_what_to_do(small: Small, mmdata: Any) -> None:
    small.write("c.txt", "boom")
    small.build()
    begin_attempt(small.workspace, "web-000002", "media")
    done = mmdata("status", "-c", small.config_path)
    assert "stuck: web-000002, media: its process died at work. Remedy: `mmdata build`" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_status_of_a_corpus_that_was_never_built(small: Small, mmdata: Any) -> None:
    done = mmdata("status", "-c", small.config_path)
    assert done.returncode == 0
    assert "no release yet" in done.stdout


def test_explain_prints_the_story(small: Small, mmdata: Any) -> None:
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
    import polars as pl

    uid = pl.read_parquet(str(rows))["uid"][0]
    shown = CliRunner().invoke(app, ["explain", uid, "-c", str(small.config_path)])
    assert caption in shown.output.replace("\n", "")


def test_schema_is_json(mmdata: Any) -> None:
    assert "sources" in json.loads(mmdata("schema").stdout)["properties"]


def test_explain_of_an_unknown_uid_is_a_user_error(small: Small, mmdata: Any) -> None:
    small.build()
    done = mmdata("explain", "0" * 32, "-c", small.config_path)
    assert done.returncode == 2
    assert Workspace(small.corpus.workspace).root.path in done.stderr
