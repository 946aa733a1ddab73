"""A slice at rest: killed, interrupted, damaged and repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmdata.download import slices
from mmdata.download.stage import fetch_part
from mmdata.engine import part_run
from mmdata.errors import PartFailed
from tests.support.hostile_server import HostileServer, answer, jpeg
from tests.support.media_parts import assert_whole, tar_of


class Killed(BaseException):
    """As far as the code can tell, the process ends here."""


@pytest.mark.parametrize("moment", ["table", "stamp"])
def test_a_killed_retry_leaves_the_part_intact(web, handmade, monkeypatch, moment):
    part = handmade(
        [{"url": web.url(f"/jpg/{n}")} for n in range(6)] + [{"url": web.url("/busy/40")}], retry_after_s=0.001
    )
    fetch_part(part.corpus, part.workspace, part.name)
    sound = part.workspace.part_stamp(part.name, "media")
    web.files["/busy/40"] = answer(jpeg(40))
    time.sleep(0.05)
    with monkeypatch.context() as patch:
        if moment == "table":
            patch.setattr(part_run, "write_table", lambda *_: (_ for _ in ()).throw(Killed))
        else:
            patch.setattr(part.workspace, "write_slice_stamp", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            fetch_part(part.corpus, part.workspace, part.name)
    assert part.workspace.part_stamp(part.name, "media") == sound, "a retry that is due holds no release back"
    assert assert_whole(part) == (6 if moment == "table" else 7)
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 7


def test_a_run_killed_before_its_tar_leaves_the_old_state(web, handmade, monkeypatch):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/busy/2")}], retry_after_s=0.001)
    fetch_part(part.corpus, part.workspace, part.name)
    old = [path.read_bytes() for path in (tar_of(part), part.workspace.table(part.name, "media", "0000"))]
    time.sleep(0.05)
    with monkeypatch.context() as patch:
        patch.setattr(slices, "write_tar", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises((Killed, PartFailed)):
            fetch_part(part.corpus, part.workspace, part.name)
    assert old == [path.read_bytes() for path in (tar_of(part), part.workspace.table(part.name, "media", "0000"))]
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 2
    assert web.hits["/jpg/1"] == 1


@pytest.mark.parametrize("damaged", ["table", "media_tar"])
def test_a_damaged_file_is_fetched_anew(web, handmade, damaged):
    part = handmade([{"url": web.url("/jpg/1")}])
    fetch_part(part.corpus, part.workspace, part.name)
    path = part.workspace.table(part.name, "media", "0000") if damaged == "table" else tar_of(part)
    path.write_bytes(b"PAR1 no more")
    part.workspace.clear_slice_stamp(part.name, "media", "0000")
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 1
    assert web.hits["/jpg/1"] == 2


def test_two_workspaces_hold_the_same_bytes(tmp_path_factory, handmade, web):
    from tests.support.handmade import HandmadePart

    rows = [{"url": web.url(f"/jpg/{number}")} for number in range(25)]
    parts = [HandmadePart(tmp_path_factory.mktemp("ws"), [rows], threads=threads) for threads in (1, 16)]
    for part in parts:
        fetch_part(part.corpus, part.workspace, part.name)
    tars = [tar_of(part).read_bytes() for part in parts]
    stamps = [part.workspace.part_stamp(part.name, "media") for part in parts]
    assert tars[0] == tars[1]
    assert stamps[0].digest == stamps[1].digest


def test_an_empty_slice_is_complete(handmade):
    part = handmade([])
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 0
    assert report.counts["rows"] == 0


INTERRUPTED = """
import sys, threading, time, os, signal
from mmdata.config.load import parse_corpus
from mmdata.download import images
from mmdata.download.stage import fetch_part
from mmdata.workspace.layout import Workspace
corpus = parse_corpus({{"workspace": {workspace!r}, "sources": [{{"name": "w", "kind": "laion", "files": "x"}}],
    "download": {{"allow_hosts": ["127.0.0.0/8"], "timeout_s": 50, "deadline_s": 50}}}})
images.load_img2dataset(corpus.download)
print("ready", flush=True)
fetch_part(corpus, Workspace({workspace!r}), "w-000000")
"""


def test_a_silent_server_does_not_delay_an_interrupt(web: HostileServer, handmade):
    part = handmade([{"url": web.url(f"/silent?{n}")} for n in range(20)])
    script = INTERRUPTED.format(workspace=part.corpus.workspace)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(100):
            if web.hits["/silent"]:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) != 0
    assert not part.workspace.table(part.name, "media", "0000").exists()


def test_a_retry_writes_a_new_tar_and_keeps_the_old_one_for_its_readers(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/busy/40")}], retry_after_s=0.001)
    fetch_part(part.corpus, part.workspace, part.name)
    old = tar_of(part)
    content = old.read_bytes()
    web.files["/busy/40"] = answer(jpeg(40))
    time.sleep(0.05)
    fetch_part(part.corpus, part.workspace, part.name)
    assert tar_of(part) != old
    assert old.read_bytes() == content
    fetch_part(part.corpus, part.workspace, part.name)
    assert [path.name for path in old.parent.glob("*.tar")] == [tar_of(part).name], "the next run clears up"
