"""Decodes a film that was made for tests with a pool of decoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.media.clip import ClipOptions
from mmdata.media.cutting import Span
from mmdata.media.decoder_pool import CutClip, DecoderPool
from tests.support.made_videos import make

OPTIONS = ClipOptions(frames=2, choose="uniform", sound=True, keep_video=False, image_size=120, quality=90)
SPANS = [Span(0.0, 2.0), Span(2.0, 4.0), Span(6.0, 8.0)]


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("film") / "film.mkv", seconds=8.0)


def run(pool: DecoderPool, path: Path) -> list[CutClip]:
    with pool.decode(path, "video", SPANS, OPTIONS) as decoded:
        for clip in decoded.clips:
            assert sum(member.length for member in clip.members) <= decoded.data.stat().st_size
        return decoded.clips


def problems(clips: list[CutClip]) -> list[str | None]:
    return [clip.problem for clip in clips]


def children(pool: DecoderPool) -> list[int]:
    return [process.pid for process in pool.processes if process.pid is not None]
