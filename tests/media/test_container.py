"""Which files are opened, which are refused, and how long they are."""

from __future__ import annotations

import av
import pytest

from mmdata.media.container import FileProblem
from tests.support.cutting import assert_exact, assert_sounds, cut, problems
from tests.support.made_videos import (
    make,
)


def test_a_video_without_pictures_is_no_video(made):
    with pytest.raises(FileProblem) as problem:
        cut(made("only_sound.m4a", video=None), [(1.0, 3.0)])
    assert problem.value.problem == "no_video"


def test_a_cover_picture_is_no_video(made):
    path = made("cover.mp4", cover=True, video=None)
    with pytest.raises(FileProblem) as problem:
        cut(path, [(1.0, 3.0)])
    assert problem.value.problem == "no_video"
    results, _ = cut(made("cover_beside.mp4", cover=True), [(1.0, 3.0)])
    assert_exact(made("cover_beside.mp4"), (1.0, 3.0), results[0])


@pytest.mark.parametrize("body", [b"", b"not a film", b"\0" * 5000, b"GIF89a" + b"\0" * 50])
def test_other_files_are_undecodable(tmp_path, body):
    path = tmp_path / "film.mp4"
    path.write_bytes(body)
    with pytest.raises(FileProblem) as problem:
        cut(path, [(0.0, 1.0)])
    assert problem.value.problem == "undecodable"


def test_a_file_cannot_lead_the_decoder_to_other_files(made, tmp_path):
    """Playlists are files that name files: opened without care they would read what is on our disk or network."""
    target = made("pcm.mov")
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nfile://{target}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "list.mpd": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>'
        f"{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in lists.items():
        for path in (tmp_path / name, tmp_path / f"{name}.mp4"):
            path.write_text(text)
            with pytest.raises(FileProblem) as problem:
                cut(path, [(0.0, 1.0)])
            assert problem.value.problem == "undecodable"


def test_limits_refuse_a_file(made):
    path = made("h264_b_frames.mp4")
    for limit, reason in (({"max_duration_s": 10.0}, "too_long"), ({"max_pixels": 70_000}, "bomb")):
        with pytest.raises(FileProblem) as problem:
            cut(path, [(0.0, 1.0)], **limit)
        assert problem.value.problem == reason


def test_the_length_of_a_file_is_measured_if_it_states_none(made, tmp_path):
    """As a recorder leaves it: Matroska without a length; and bare AAC, whose length would be a guess by bit rate."""
    path = tmp_path / "live.mkv"
    with av.open(str(made("h264_b_frames.mp4"))) as source, av.open(str(path), "w", options={"live": "1"}) as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration is None
    results, facts = cut(path, [None, (11.0, 14.0)])
    assert facts.duration_s == pytest.approx(12.0, abs=0.05)
    assert problems(results) == ["cut", "cut"]
    assert_exact(path, (0.0, facts.duration_s), results[0])
    with pytest.raises(FileProblem, match="too_long"):
        cut(path, [None], max_duration_s=10.0)
    bare = make(tmp_path / "bare.aac", video=None)
    results, facts = cut(bare, [None, (9.0, 11.5)], kind="audio")
    assert facts.duration_s == pytest.approx(12.0, abs=0.05)
    assert_sounds((9.0, 11.5), results[1], delay_s=-0.0213, slack=1100)  # bare AAC does not know of its priming
