"""The settings of a slice: how clips are cut, and where files are fetched from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmdata.config.load import parse_corpus
from mmdata.download.media_settings import MediaSettings
from mmdata.optout.hashes import NO_OPT_OUT


def settings_of(source: dict[str, Any], **sections: Any) -> MediaSettings:
    base = {"name": "films", "kind": "video", "files": "x.parquet"}
    base["columns"] = {"url": "u", "caption": "c", "start_s": "s", "end_s": "e"}
    corpus = parse_corpus({"workspace": "w", "sources": [{**base, **source}], **sections})
    return MediaSettings.of(corpus, "films", NO_OPT_OUT)


def test_clip_options_come_from_three_sections() -> None:
    settings = settings_of(
        {},
        clips={"frames": 3, "choose": "scene", "sound": False, "keep_video": True, "max_duration_s": 99},
        download={"image_size": 64, "encode_quality": 80, "max_pixels": 5000},
        privacy={"blur_faces": True, "min_face_score": 0.7, "drop_voices": True, "max_speech": 0.2},
    )
    options = settings.clip_options
    assert (options.frames, options.choose, options.sound, options.keep_video) == (3, "scene", False, True)
    assert (options.image_size, options.quality) == (64, 80)
    assert (options.max_duration_s, options.max_pixels) == (99, 5000)
    assert (options.blur_faces, options.min_face_score, options.drop_voices, options.max_speech) == (
        True,
        0.7,
        True,
        0.2,
    )


@pytest.mark.parametrize(
    ("video_id", "url"),
    [("a b/c", "http://m/a%20b%2Fc.mkv"), (7, "http://m/7.mkv"), ("..", None), ("", None), (None, None), ([1], None)],
)
def test_the_url_at_a_mirror_holds_the_video_id(video_id: object, url: str | None) -> None:
    settings = settings_of({"fetch_from": "http://m/{video_id}.mkv"})
    assert settings.file_url({"url": "http://a/x", "extra": json.dumps({"video_id": video_id})}) == url
    assert settings.file_url({"url": "http://a/x", "extra": None}) is None


def test_without_a_mirror_the_url_is_that_of_the_row() -> None:
    assert settings_of({}).file_url({"url": "http://a/x", "extra": None}) == "http://a/x"
