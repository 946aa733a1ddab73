"""Decoding processes that really hang and really die, and what the files beside them get."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mmdata.media.clip import ClipOptions
from mmdata.media.container import FileFacts, FileLimits
from mmdata.media.cutting import Span
from mmdata.media.decoder import MAX_ADDRESS_SPACE_BYTES
from mmdata.media.decoder_pool import CutClip, DecoderPool
from tests.support.made_videos import make, number_in_jpeg

LOOK = ClipOptions(frames=2, choose="uniform", sound=True, keep_video=False, image_size=120, quality=90)
LIMITS = FileLimits(max_duration_s=3600, max_pixels=10_000_000)
SPANS = [Span(0.0, 2.0), Span(2.0, 4.0), Span(6.0, 8.0)]


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("film") / "film.mkv", seconds=8.0)


@pytest.fixture
def hanging(tmp_path, film):
    """A file that never ends: half of a film comes out of a pipe, and then nothing more."""
    path = tmp_path / "hanging.mkv"
    os.mkfifo(path)
    stop = threading.Event()

    def feed() -> None:
        with path.open("wb") as pipe:
            data = film.read_bytes()
            pipe.write(data[: len(data) * 6 // 10])
            pipe.flush()
            stop.wait(30)

    threading.Thread(target=feed, daemon=True).start()
    yield path
    stop.set()


def run(pool: DecoderPool, path: Path) -> list[CutClip]:
    with pool.decode(path, "video", SPANS, LOOK, LIMITS) as decoded:
        for clip in decoded.clips:
            assert sum(member.length for member in clip.members) <= decoded.data.stat().st_size
        return decoded.clips


def problems(clips: list[CutClip]) -> list[str | None]:
    return [clip.problem for clip in clips]


def children(pool: DecoderPool) -> list[int]:
    return [process.pid for process in pool.processes if process.pid is not None]


def test_clips_come_back_with_their_bytes_and_the_process_stays(film):
    with DecoderPool(1, 60) as pool:
        with pool.decode(film, "video", SPANS, LOOK, LIMITS) as decoded:
            data = decoded.data.read_bytes()
            facts = FileFacts(width=320, height=240, fps=25.0, duration_s=8.021, has_sound=True)
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


def test_a_process_that_hangs_is_killed_and_what_it_had_cut_is_kept(hanging, film):
    with DecoderPool(1, 3) as pool:
        started = time.monotonic()
        clips = run(pool, hanging)
        assert time.monotonic() - started < 10
        assert problems(clips) == [None, None, "decode_timeout"]
        assert [member.ext for member in clips[0].members] == ["000.jpg", "001.jpg", "flac"]
        assert problems(run(pool, film)) == [None] * 3


@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_dies_costs_its_file_only(hanging, film, death):
    """SIGSEGV is what a decoder's fault looks like, SIGKILL what the kernel does when memory is short."""
    with DecoderPool(1, 60) as pool:
        assert problems(run(pool, film)) == [None] * 3
        threading.Timer(1.5, lambda: os.kill(children(pool)[0], death)).start()
        clips = run(pool, hanging)
        assert problems(clips) == [None, None, "decoder_crashed"]
        assert problems(run(pool, film)) == [None] * 3


def test_one_dying_process_leaves_the_others_alone(hanging, film):
    with DecoderPool(2, 3) as pool:
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


def test_a_process_has_no_more_memory_than_it_may(film):
    with DecoderPool(1, 60) as pool:
        run(pool, film)
        limits = Path(f"/proc/{children(pool)[0]}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert line.split()[3] == str(MAX_ADDRESS_SPACE_BYTES)


def test_a_file_that_cannot_be_opened_gives_every_clip_the_reason(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no film")
    with DecoderPool(1, 60) as pool:
        clips = run(pool, path)
    assert problems(clips) == ["undecodable"] * 3
    assert "cannot be opened" in str(clips[0].detail)
    assert str(tmp_path) not in str(clips[0].detail)
