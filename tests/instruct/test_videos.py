"""The clips of a split by video and time."""

from __future__ import annotations

from tests.support.asked import clip, picture, split_of


def test_clips_of_a_video_are_in_the_order_of_time_whatever_their_uids() -> None:
    rows = [
        clip(0, "b"),
        clip(1, "a", start_s=20.0, end_s=28.0),
        picture(2),
        clip(3, "a", start_s=0.0, end_s=8.0),
        clip(4, "a", start_s=20.0, end_s=25.0),  # starts with row 1, and ends before it
        clip(5, "b"),
    ]
    videos = split_of(rows).videos
    assert videos.clips(1).tolist() == videos.clips(3).tolist() == videos.clips(4).tolist() == [3, 4, 1]
    assert videos.clips(0).tolist() == videos.clips(5).tolist() == [0, 5]
    assert videos.clips(2).tolist() == []


def test_the_clips_before_are_the_nearest_ones_of_the_same_video() -> None:
    videos = split_of([clip(number, "ab"[number > 3]) for number in range(6)]).videos
    assert videos.before(3, 2).tolist() == [1, 2]
    assert videos.before(3, 9).tolist() == [0, 1, 2]
    assert videos.before(0, 2).tolist() == []
    assert videos.before(4, 2).tolist() == [], "the clip in front is of another video"


def test_without_times_or_an_address_a_clip_has_no_place() -> None:
    videos = split_of([clip(0, start_s=None), clip(1, url=None), clip(2)]).videos
    assert [videos.clips(at).tolist() for at in range(3)] == [[], [], [2]]
    assert videos.before(0, 4).tolist() == []


def test_heard_are_the_clips_whose_own_sound_is_stored() -> None:
    rows = [clip(0), clip(1, exts=["000.jpg"]), clip(2, synthetic="audio"), picture(3, exts=["jpg", "flac"]), clip(4)]
    assert split_of([*rows, clip(5, exts=None)]).videos.heard.tolist() == [0, 4]


def test_a_split_without_clips_has_no_videos() -> None:
    for rows in ([], [picture(0)]):
        videos = split_of(rows).videos
        assert (len(videos.order), len(videos.heard), len(videos.place)) == (0, 0, len(rows))
