"""Two builds of one workspace at the same time: what comes out is what one alone makes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmdata.publish.verify import verify_release
from tests.crash.scenes import CONFIG, Scene, make_scenes, order, outcome, pictures, write_rows
from tests.crash.seeds import SEEDS
from tests.crash.zygote import ROOT, Life, Zygote


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Zygote, Zygote, list[Scene]]]:
    with pictures() as url, Zygote() as one, Zygote() as other:
        yield one, other, make_scenes(tmp_path_factory.mktemp("two"), url, one)[:2]


def start(scene: Scene) -> Path:
    folder = scene.folder.parent / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(scene.folder, folder)
    return folder


def both(
    stage: tuple[Zygote, Zygote, list[Scene]], folder: Path, work: str, delay_s: float, **death: float
) -> list[Life]:
    """The lives of two builds, the second of which begins a while after the first, to which something happens."""
    one, other, _ = stage
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.live, order(folder, work, **death))
        time.sleep(delay_s)
        second = pool.submit(other.live, order(folder, work))
        return [first.result(), second.result()]


@pytest.mark.parametrize("seed", SEEDS)
def test_two_builds_make_what_one_alone_makes(stage: tuple[Zygote, Zygote, list[Scene]], seed: int) -> None:
    for scene in stage[2]:
        folder = start(scene)
        lives = both(stage, folder, "build", random.Random(seed).uniform(0, 1.5))
        assert [life.end for life in lives] == ["done", "done"]
        assert outcome(folder) == scene.expected


@pytest.mark.parametrize("seed", SEEDS)
def test_a_build_goes_on_when_the_one_it_waits_for_is_killed(
    stage: tuple[Zygote, Zygote, list[Scene]], seed: int
) -> None:
    for scene in stage[2]:
        folder, numbers = start(scene), random.Random(seed)
        lives = both(stage, folder, "build", numbers.uniform(0, 0.5), after_s=numbers.uniform(0.3, 2))
        assert lives[1].end == "done"
        assert outcome(folder) == scene.expected


@pytest.mark.parametrize("seed", SEEDS)
def test_a_build_that_was_stopped_and_wakes_up_damages_nothing(
    stage: tuple[Zygote, Zygote, list[Scene]], seed: int
) -> None:
    for scene in stage[2]:
        folder, numbers = start(scene), random.Random(seed)
        lives = both(
            stage,
            folder,
            "build, short leases",
            numbers.uniform(0, 0.5),
            after_s=numbers.uniform(0.3, 2),
            pause_s=numbers.uniform(1.5, 6),
        )
        for life in lives:
            assert life.end == "done" or "LeaseLost" in life.end or "is lost: " in life.end, lives
        last = stage[0].live(order(folder, "build"))
        assert last.end == "done"
        assert outcome(folder) == scene.expected


def command(corpus: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from mmdata.cli.main import run; run()", "build", "-c", str(corpus / "corpus.yaml")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(("wait_s", "second_code"), [(3600, 0), pytest.param(0, 1, marks=pytest.mark.slow)])
def test_a_second_command_waits_or_makes_no_release_without_the_busy_part(
    tmp_path: Path, wait_s: int, second_code: int
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    config = CONFIG.format(top_fraction=0.9).replace("timeout_s: 60", "timeout_s: 600, deadline_s: 600")
    (corpus / "corpus.yaml").write_text(f"{config}engine: {{wait_s: {wait_s}}}\n")
    asked, is_fetching, may_answer = Counter[str](), threading.Event(), threading.Event()

    def on_request(path: str) -> None:
        asked[path] += 1
        if int(path.strip("/").partition(".")[0]) < 24:  # the first part
            is_fetching.set()
            may_answer.wait(600)

    with pictures(on_request) as url:
        write_rows(corpus, "a.parquet", url, 0, 48)
        first = command(corpus)
        assert is_fetching.wait(240)
        second = command(corpus)
        if wait_s:
            while (line := second.stdout.readline() if second.stdout else "") and "waits for a lease" not in line:
                pass
            assert "part-web-000000" in line
        else:
            second.wait(240)
            assert not list(corpus.glob("workspace/releases/*/manifest.json")), "a release without the busy part"
        may_answer.set()
        outputs = [build.communicate(timeout=240)[0] for build in (first, second)]
    assert [first.returncode, second.returncode] == [0, second_code], outputs
    (made,) = [path.parent for path in corpus.glob("workspace/releases/*/manifest.json")]
    assert f"release {made.name}" in outputs[0]
    if wait_s:
        assert f"release {made.name}" in outputs[1]
    else:
        assert "no release was made: another build works on web-000000" in outputs[1]
    assert verify_release(made).counts["samples"] > 30
    assert set(asked.values()) == {1}, "the second build has fetched again what the first had"
