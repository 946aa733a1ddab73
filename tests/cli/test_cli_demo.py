"""`mmdata demo`: the wiring; the build itself is tested with the graph."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from mmdata.cli import build as build_command
from mmdata.cli import ui as ui_command
from mmdata.cli.demo import caption_lines, how_to_look
from mmdata.cli.main import app
from mmdata.demo import demo_summary
from mmdata.demo.demo_folder import make_demo
from mmdata.demo.demo_summary import DemoSummary
from mmdata.demo.picture_plan import MIN_ROWS
from mmdata.stage import StageReport
from pipelines.watcher import Build

FIGURES = DemoSummary(
    **dict.fromkeys(("rows_in", "rows_accounted_for", "distinct", "fetched", "kept", "samples", "repeated"), 1500),
    **dict.fromkeys(("validation", "shards", "instructions"), 3),
    **dict.fromkeys(("shard_mb", "clean_share_before", "clean_share_after"), 0.5),
    **{name: {"http_404": 7} for name in ("refused", "failed", "filtered", "deduplicated", "balanced")},
    **{name: {"caught": 9} for name in ("mismatches", "good_pairs", "kinds_before", "kinds_after")},
    copies_caught={"near": "3 of 4"},
    scorer="demo (small offline scorer)",
    release="abc",
    manifest="m.json",
    report="report.html",
)


LOSSES = {"first_loss": 4.1, "last_loss": 1.2, "val/loss": 3.0}
RECALL = {
    f"align/{way}/{name}": value
    for way in ("image_to_text", "text_to_image")
    for name, value in (("recall@10", 0.4), ("chance@10", 0.02))
} | {"joint/loss": 1.25, "joint/loss_with_other_pictures": 1.75}
MODELS = [
    *(StageReport(stage, counts={"steps": 9}, numbers=LOSSES) for stage in ("align", "joint", "instruct")),
    StageReport(
        "evaluation",
        numbers=RECALL,
        tables={"answers": [{"stage": "joint", "expected": "a red circle", "generated": "a red thing"}]},
        paths={"models": "/somewhere", "captions": "/somewhere/joint/captions.html", "report": "r.html"},
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small demo; making one takes seconds, and a command uses the one that is there."""
    return make_demo(tmp_path_factory.mktemp("demos") / "d", MIN_ROWS).folder


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands in for the build and the UI: fetches a picture of the corpus from the server, which must be up."""
    sizes: list[int] = []

    def fetch(config: Path, *_: Any, **__: Any) -> None:
        urls = pl.concat(
            [pl.read_parquet(file).select("URL") for file in sorted(config.parent.glob("inbox/*.parquet"))]
        )
        url = urls.filter(pl.col("URL").str.contains("/pictures/"))["URL"][0]
        with urllib.request.urlopen(url, timeout=5) as answer:
            sizes.append(len(answer.read()))

    def build(config: Path, **_: Any) -> Build:
        fetch(config)
        return Build([], {}, "abc")

    def ui(config: Path, *_: Any) -> int:
        fetch(config)
        return 0

    monkeypatch.setattr(build_command, "run_build", build)
    monkeypatch.setattr(ui_command, "run_ui", ui)
    monkeypatch.setattr(demo_summary, "summarise", lambda folder: FIGURES)
    monkeypatch.setattr("mmdata.cli.demo.run_training", lambda config, verbose: MODELS)
    return sizes


def test_demo_builds_with_its_server_up_and_prints_the_summary(folder: Path, fetched: list[int]) -> None:
    done = CliRunner().invoke(app, ["demo", "--folder", str(folder), "--rows", str(MIN_ROWS)])
    assert done.exit_code == 0, done.output
    assert len(fetched) == 1
    assert fetched[0] > 100
    for words in ("rows in", "1,500", "http_404", "small offline scorer", "report.html", "mmdata demo --ui --folder"):
        assert words in done.output
    for words in (
        "align",
        "4.1",
        "Recall@10 on the held-out split: 40.0%, 20.0 times chance (2.00%)",
        "held-out loss of captions: 1.250; with the pictures of other samples: 1.750",
        "a red thing",
        "captions beside their pictures: /somewhere/joint/captions.html",
        "the release, with captions: r.html#captions",
    ):
        assert words in done.output.replace("\n", " ")


def test_captions_are_judged_by_the_truth(tmp_path: Path, folder: Path) -> None:
    truth = pl.read_parquet(folder / "truth.parquet").filter(pl.col("kind") == "animal")["uid"].unique().to_list()
    answers = [{"uid": uid, "generated": "the animal cat", "with_other_picture": "a face"} for uid in truth[:4]]
    answers[0]["generated"] = "the object cat"
    (tmp_path / "joint").mkdir()
    (tmp_path / "joint" / "metrics.json").write_text(json.dumps({"answers": answers}))
    evaluation = StageReport("evaluation", paths={"models": str(tmp_path)})
    assert caption_lines(evaluation, folder / "truth.parquet") == [
        "captions that name the right kind: 75% of 4 held-out pictures; with the pictures of other samples: 0%"
    ]


def test_demo_can_stop_at_the_release(folder: Path, fetched: list[int]) -> None:
    done = CliRunner().invoke(app, ["demo", "--folder", str(folder), "--rows", str(MIN_ROWS), "--no-train"])
    assert done.exit_code == 0, done.output
    assert "Recall@10" not in done.output


def test_make_users_are_told_of_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    assert how_to_look(Path("demo")) == "make ui"
    assert how_to_look(Path("other")).endswith("mmdata demo --ui --folder other")
    monkeypatch.delenv("MAKELEVEL")
    assert how_to_look(Path("demo")).endswith("mmdata demo --ui")


def test_demo_ui_opens_the_demo_that_is_there_whatever_its_size(folder: Path, fetched: list[int]) -> None:
    before = (folder / "truth.parquet").stat().st_mtime_ns
    done = CliRunner().invoke(app, ["demo", "--ui", "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    assert len(fetched) == 1
    assert (folder / "truth.parquet").stat().st_mtime_ns == before


def test_demo_leaves_a_folder_alone_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path)])
    assert "holds no demo" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
