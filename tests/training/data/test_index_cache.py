"""Index folders are published whole, once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from mmdata.errors import DataError
from training.data import index_cache
from training.data.index_cache import build_once, is_complete, mark_complete, publish_folder, read_mark


def test_who_publishes_a_folder_second_throws_his_own_away(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def fill(folder: Path) -> None:
        (folder / "done.json").write_text("second")
        if not target.exists():
            publish_folder(target, lambda other: (other / "done.json").write_text("first"))

    publish_folder(target, fill)
    assert (target / "done.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def filled_slowly(target: Path, calls: Path) -> None:
    def fill(draft: Path) -> None:
        with calls.open("a") as file:
            file.write("filled\n")
        time.sleep(0.3)
        mark_complete(draft, {})

    build_once(target, fill)
    assert is_complete(target)


def test_one_of_several_processes_fills_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "index", tmp_path / "calls")
    processes = [context.Process(target=filled_slowly, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "calls").read_text() == "filled\n"


def died_halfway(target: Path) -> None:
    def fill(draft: Path) -> None:
        (draft / "half").write_text("half")
        os._exit(9)

    build_once(target, fill)


def test_a_process_that_waits_takes_over_from_one_that_died(tmp_path: Path) -> None:
    target = tmp_path / "index"
    process = multiprocessing.get_context("fork").Process(target=died_halfway, args=(target,))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert list(tmp_path.glob("*/half")), "left behind"
    build_once(target, lambda draft: mark_complete(draft, {"rows": 3}))
    assert read_mark(target) == {"rows": 3}
    assert not list(tmp_path.glob("*/half")), "and taken away"


def test_an_error_is_met_by_each_process_that_wants_the_folder(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        raise DataError("the index is broken")

    for _ in range(2):
        with pytest.raises(DataError, match="the index is broken"):
            build_once(tmp_path / "index", fill)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_log_says_what_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_cache, "WAIT_S", 0.05)
    begun = threading.Event()

    def fill(draft: Path) -> None:
        begun.set()
        time.sleep(0.3)
        mark_complete(draft, {})

    other = threading.Thread(target=build_once, args=(tmp_path / "index", fill))
    other.start()
    assert begun.wait(10)
    build_once(tmp_path / "index", lambda draft: pytest.fail("it is there"))
    other.join()
    assert "index: another process writes it" in caplog.text
