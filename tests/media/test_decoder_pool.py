"""Decoding processes that really hang and really die, and what the files beside them get."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mmdata.media.container import FileFacts
from mmdata.media.decoder_pool import CutClip, DecoderPool
from tests.support.decoding import OPTIONS, SPANS, children, problems, run
from tests.support.made_videos import number_in_jpeg


@pytest.fixture
def hanging(tmp_path, film):
    """A file that never ends when it is decoded: its packets come once, then half of them, then nothing more."""
    path = tmp_path / "hanging.mkv"
    os.mkfifo(path)
    stop = threading.Event()

    def feed() -> None:
        data = film.read_bytes()
        with path.open("wb") as pipe:
            path.unlink()
            os.mkfifo(path)  # the next one that opens the path gets another pipe
            pipe.write(data)
        with path.open("wb") as pipe:
            pipe.write(data[: len(data) * 6 // 10])
            pipe.flush()
            stop.wait(30)

    threading.Thread(target=feed, daemon=True).start()
    yield path
    stop.set()


def test_clips_come_back_with_their_bytes_and_the_process_stays(film):
    with DecoderPool(1, 60) as pool:
        with pool.decode(film, "video", SPANS, OPTIONS) as decoded:
            data = decoded.data.read_bytes()
            facts = FileFacts(width=320, height=240, fps=25.0, duration_s=8.021)
            assert decoded.facts == facts
            for span, clip in zip(SPANS, decoded.clips, strict=True):
                assert [member.ext for member in clip.members] == ["000.jpg", "001.jpg", "flac"]
                first = clip.members[0]
                number = number_in_jpeg(data[first.offset : first.offset + first.length])
                assert number == ((span.start_s or 0) + 0.5) * 25 - 0.5
        before = children(pool)
        assert problems(run(pool, film)) == [None] * 3
        assert children(pool) == before
    assert not Path(f"/proc/{before[0]}").exists()


@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGKILL])
def test_a_dying_process_affects_only_its_file(hanging, film, death):
    """SIGSEGV is what a decoder's fault looks like, SIGKILL what the kernel does when memory is short."""
    with DecoderPool(1, 60) as pool:
        assert problems(run(pool, film)) == [None] * 3
        threading.Timer(0.8, lambda: os.kill(children(pool)[0], death)).start()
        clips = run(pool, hanging)
        assert problems(clips) == [None, None, "decoder_crashed"]
        assert problems(run(pool, film)) == [None] * 3


def test_a_process_that_hangs_is_killed_and_its_clips_kept_while_the_others_go_on(hanging, film):
    with DecoderPool(2, 2) as pool:
        started = time.monotonic()
        results: dict[str, list[CutClip]] = {}
        threads = [
            threading.Thread(target=lambda path=path: results.update({path.name: run(pool, path)}))
            for path in (hanging, film)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems(results["film.mkv"]) == [None] * 3
        assert problems(results["hanging.mkv"]) == [None, None, "decode_timeout"]
        assert time.monotonic() - started < 10
        assert [member.ext for member in results["hanging.mkv"][0].members] == ["000.jpg", "001.jpg", "flac"]
        assert problems(run(pool, film)) == [None] * 3


def test_a_file_that_cannot_be_opened_gives_every_clip_the_reason(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no film")
    with DecoderPool(1, 60) as pool:
        clips = run(pool, path)
    assert problems(clips) == ["undecodable"] * 3
    assert "cannot be opened" in str(clips[0].detail)
    assert str(tmp_path) not in str(clips[0].detail)
