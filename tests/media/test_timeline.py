"""One timeline for files whose times start over, leap, wrap around or are damaged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmdata.media.timeline import Clock, Survey, Timeline

PICTURE, SOUND = 0, 1
Packets = list[tuple[int, float, float]]  # stream, time, duration


def piece(begin_s: float, seconds: float, first_number: int = 0) -> Packets:
    """Picture at 25 frames a second and sound in blocks of 20 ms, interleaved; the sound lags by some packets."""
    pictures = [(PICTURE, begin_s + n * 0.04, 0.04) for n in range(round(seconds * 25))]
    sounds = [(SOUND, begin_s + n * 0.02, 0.02) for n in range(round(seconds * 50))]
    return sorted(pictures + sounds, key=lambda packet: packet[1] + 0.1 * (packet[0] == SOUND))


def surveyed(packets: Packets, closes_gaps: bool = True) -> Timeline:
    survey = Survey(closes_gaps)
    for stream, time_s, duration_s in packets:
        survey.add(stream, stream == PICTURE, time_s, time_s, duration_s)
    return survey.timeline(has_sound=any(stream == SOUND for stream, _, _ in packets))


def placed(packets: Packets, timeline: Timeline) -> Iterator[tuple[int, float | None]]:
    clock = Clock(timeline)
    for stream, time_s, _ in packets:
        shift_s = clock.shift_s(stream, time_s)
        yield stream, None if shift_s is None else round(time_s + shift_s, 6)


def times_of(stream: int, packets: Packets, timeline: Timeline) -> list[float | None]:
    return [time_s for number, time_s in placed(packets, timeline) if number == stream]


def steady(seconds: float) -> list[object]:
    return [pytest.approx(n * 0.04, abs=1e-6) for n in range(round(seconds * 25))]


def test_a_file_of_one_piece_is_straight():
    timeline = surveyed(piece(0, 10))
    assert timeline.is_straight
    assert timeline.end_s == pytest.approx(10)
    assert timeline.holes == []


@pytest.mark.parametrize("second_begin_s", [0.0, -3.0, 4.0, 700.0, 95443.7])
def test_joined_pieces_follow_one_another(second_begin_s):
    """The clock starts over, or somewhere else: the picture and the sound of the second piece follow the first one."""
    packets = piece(0, 10) + piece(second_begin_s, 10) + piece(0, 5)
    timeline = surveyed(packets)
    assert timeline.end_s == pytest.approx(25)
    assert times_of(PICTURE, packets, timeline) == steady(25)
    assert [at for n, at in enumerate(times_of(SOUND, packets, timeline)) if n % 2 == 0] == steady(25)


def test_the_last_packets_of_a_piece_may_come_behind_the_first_ones_of_the_next():
    """So MPEG-TS stores them: a picture is complete only when the next one begins."""
    first, second = piece(0, 10), piece(0, 10)
    late = [packet for packet in first if packet[0] == PICTURE][-2:]
    packets = [packet for packet in first if packet not in late]
    packets += [packet for packet in second[:30] if packet[0] == SOUND] + late
    packets += [packet for packet in second if packet not in packets[-40:] or packet[0] == PICTURE]
    timeline = surveyed(packets)
    assert times_of(PICTURE, packets, timeline) == steady(20)


def test_a_gap_stays_in_formats_whose_times_do_not_leap():
    packets = piece(0, 10) + piece(1000, 10)
    timeline = surveyed(packets, closes_gaps=False)
    assert timeline.is_straight
    assert timeline.end_s == pytest.approx(1010)
    (hole,) = timeline.holes
    assert hole == pytest.approx((10, 1000))
    assert timeline.hole_at(500) == hole
    assert timeline.hole_at(9.9) is None
    assert timeline.hole_at(1000.0) is None


def test_a_step_back_is_a_new_piece_in_all_formats():
    packets = piece(0, 10) + piece(0, 10)
    assert times_of(PICTURE, packets, surveyed(packets, closes_gaps=False)) == steady(20)


def test_a_pause_of_the_picture_alone_is_no_leap():
    """Slides, or a camera that fails: the sound goes on, and the picture stays on the screen."""
    packets = [packet for packet in piece(0, 60) if packet[0] == SOUND or packet[1] < 5 or packet[1] > 50]
    timeline = surveyed(packets)
    assert timeline.is_straight
    assert timeline.holes == []
    assert timeline.is_shown(4.96, 40)


def test_a_picture_that_says_how_long_it_stays_makes_no_hole():
    assert surveyed([(PICTURE, 0.0, 300.0), (PICTURE, 300.0, 5.0)], closes_gaps=False).holes == []
    assert surveyed([(PICTURE, 0.0, 0.04), (PICTURE, 50.0, 0.04)], closes_gaps=False).holes == []
    assert surveyed([(PICTURE, 0.0, 0.04), (PICTURE, 900.0, 0.04)], closes_gaps=False).holes == [(0.04, 900.0)]


@pytest.mark.parametrize("step_s", [0.1, 0.3, -0.1, -0.3])
def test_jitter_is_no_new_piece(step_s):
    packets = [(stream, at + step_s * (number % 17 == 5), s) for number, (stream, at, s) in enumerate(piece(0, 10))]
    timeline = surveyed(packets)
    assert timeline.is_straight
    assert timeline.end_s == pytest.approx(10, abs=0.4)


@pytest.mark.parametrize("closes_gaps", [True, False])
@pytest.mark.parametrize("wrong_s", [4.0, 3000.0, -700.0])
def test_one_damaged_time_moves_nothing_else(wrong_s, closes_gaps):
    packets = piece(0, 10)
    number = next(n for n, (stream, at, _) in enumerate(packets) if stream == PICTURE and at > 5)
    packets[number] = (PICTURE, packets[number][1] + wrong_s, 0.04)
    timeline = surveyed(packets, closes_gaps)
    assert timeline.end_s == pytest.approx(10, abs=0.01)
    assert not timeline.is_straight  # who decodes it must read it from its beginning
    times = times_of(PICTURE, packets, timeline)
    assert times[126] is None
    assert times[:126] + times[127:] == steady(10)[:126] + steady(10)[127:]


def test_a_frame_is_not_shown_when_another_picture_was_due():
    timeline = surveyed(piece(0, 10))
    assert timeline.is_shown(5.0, 5.03)
    assert timeline.is_shown(9.96, 30)
    assert not timeline.is_shown(5.0, 8.0)


def test_packets_without_a_time_follow_the_one_before_them():
    survey = Survey(closes_gaps=False)
    for _ in range(100):
        survey.add(SOUND, False, None, None, 0.05)
    assert survey.timeline(has_sound=True).end_s == pytest.approx(5)


@pytest.mark.parametrize(("step_s", "does_fit"), [(0.02, True), (0.0, False), (3.8, False)])
def test_sound_whose_times_do_not_fit_its_length_is_untimed(step_s, does_fit):
    """FFmpeg makes up wrong times for some AVI and RealMedia: each packet then follows the one before it."""
    survey = Survey(closes_gaps=False)
    for number in range(100):
        survey.note_sound(SOUND, number * step_s, 0.02)
    assert survey.misfits == (frozenset() if does_fit else {SOUND})
    again = Survey(closes_gaps=False, untimed_streams=survey.misfits)
    for number in range(100):
        again.add(SOUND, False, number * step_s, number * step_s, 0.02)
    timeline = again.timeline(has_sound=True)
    assert timeline.end_s == pytest.approx(2.0)
    assert timeline.is_straight is does_fit


@pytest.mark.parametrize("closes_gaps", [True, False])
@pytest.mark.parametrize("wrong_s", [6.0, 300.0, -300.0])
def test_a_stretch_of_damaged_times_moves_nothing_else(wrong_s, closes_gaps):
    """As where the time of a cluster of Matroska is damaged: then the clock goes on as before."""
    packets = [(stream, at + wrong_s * (4 <= at < 6), s) for stream, at, s in piece(0, 20)]
    timeline = surveyed(packets, closes_gaps)
    assert timeline.end_s == pytest.approx(20, abs=0.01)
    times = times_of(PICTURE, packets, timeline)
    assert times[:100] + times[150:] == steady(20)[:100] + steady(20)[150:]
    assert times[100:150] == [None] * 50


def test_low_frame_rates_are_no_damage():
    for step_s in (1.0, 2.0, 5.0):
        packets = [(PICTURE, n * step_s, 0.0) for n in range(60)]
        assert surveyed(packets).is_straight
        assert times_of(PICTURE, packets, surveyed(packets))[-1] == 59 * step_s
