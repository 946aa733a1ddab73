"""Media: bytes to tensors of the encoders' sizes, or a bad sample that says why."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mmdata.score.preprocess import Preprocess
from tests.support.made_release import flac, jpeg, tone
from training.data.media_tensors import (
    SAMPLE_RATE,
    MediaSpec,
    decode_data_uri,
    decode_media,
    decode_picture,
    decode_sound,
    evenly_spaced,
)
from training.data.sample_reader import BadSample

SPEC = MediaSpec(Preprocess(size=(24, 24)), frames=4, audio_samples=SAMPLE_RATE)


def loudest(wave: np.ndarray) -> float:
    """The frequency, in Hz, that is strongest."""
    return float(np.argmax(np.abs(np.fft.rfft(wave))) * SAMPLE_RATE / len(wave))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_of_any_rate_becomes_mono_at_16_khz(rate: int, channels: int) -> None:
    wave = decode_sound(flac(tone(440, 1.0, rate, channels), rate), 2 * SAMPLE_RATE).numpy()
    assert wave.dtype == np.float32
    assert wave.shape == (2 * SAMPLE_RATE,)
    assert not wave[SAMPLE_RATE + 32 :].any(), "silence behind its end"
    assert np.abs(wave[SAMPLE_RATE - 200 : SAMPLE_RATE]).max() > 0.3, "and not before it"
    assert loudest(wave[:SAMPLE_RATE]) == pytest.approx(440, abs=2)
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.03)


def test_sound_is_cut_where_the_tower_ends() -> None:
    data = flac(np.concatenate([tone(440, 1.0), tone(1000, 1.0)], 1), SAMPLE_RATE)
    whole, first = decode_sound(data, 2 * SAMPLE_RATE).numpy(), decode_sound(data, SAMPLE_RATE).numpy()
    assert first.shape == (SAMPLE_RATE,)
    assert np.array_equal(first, whole[:SAMPLE_RATE])
    assert loudest(first) == pytest.approx(440, abs=2)
    assert loudest(whole[SAMPLE_RATE:]) == pytest.approx(1000, abs=2)


def test_both_channels_are_heard() -> None:
    stereo = np.concatenate([tone(440, 1.0), tone(1000, 1.0)])
    spectrum = np.abs(np.fft.rfft(decode_sound(flac(stereo, SAMPLE_RATE), SAMPLE_RATE).numpy()))
    assert spectrum[440] > 1000
    assert spectrum[1000] == pytest.approx(spectrum[440], rel=0.05)


@pytest.mark.parametrize("data", [b"", b"no sound", flac(tone(440, 0.5), SAMPLE_RATE)[:50], jpeg(1)])
def test_what_is_no_sound_is_a_bad_sample(data: bytes) -> None:
    with pytest.raises(BadSample, match="sound: "):
        decode_sound(data, SAMPLE_RATE)


def test_a_picture_has_the_towers_size() -> None:
    pixels = decode_picture(jpeg(3, (50, 40)), SPEC)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 24, 24)
    assert pixels.is_contiguous()
    red = io.BytesIO()
    Image.new("RGB", (40, 40), (250, 10, 20)).save(red, "PNG")
    assert [int(value) for value in decode_picture(red.getvalue(), SPEC)[:, 12, 12]] == [250, 10, 20]


@pytest.mark.parametrize("data", [b"", b"\xff\xd8 no picture", jpeg(3)[:200], flac(tone(440, 0.1), SAMPLE_RATE)])
def test_what_is_no_picture_is_a_bad_sample(data: bytes) -> None:
    with pytest.raises(BadSample, match="undecodable"):
        decode_picture(data, SPEC)
    with pytest.raises(BadSample, match="undecodable"):
        decode_picture(decode_data_uri(f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"), SPEC)


def test_an_embedded_picture_is_the_same_one() -> None:
    uri = f"data:image/jpeg;base64,{base64.b64encode(jpeg(3)).decode()}"
    assert decode_data_uri(uri) == jpeg(3)
    for broken in ("data:image/jpeg;base64,***", "https://example.org/a.jpg", "data:text/html;base64,AAAA"):
        with pytest.raises(BadSample):
            decode_picture(decode_data_uri(broken), SPEC)


def test_a_samples_media_are_what_it_holds() -> None:
    sound = flac(tone(440, 0.5), SAMPLE_RATE)
    frames = {f"{at:03d}.jpg": jpeg(at) for at in range(10)}
    single = decode_media({"jpg": jpeg(1), "txt": b"a", "json": b"{}"}, SPEC)
    assert single.pictures is not None
    assert single.pictures.shape == (1, 3, 24, 24)
    assert (single.sound, single.is_clip) == (None, False)
    clip = decode_media({**frames, "flac": sound, "txt": b"a"}, SPEC)
    assert clip.pictures is not None
    assert clip.sound is not None
    assert clip.is_clip
    expected = [decode_picture(jpeg(at), SPEC) for at in (0, 3, 6, 9)]
    assert torch.equal(clip.pictures, torch.stack(expected))
    assert torch.equal(clip.sound, decode_sound(sound, SAMPLE_RATE))
    deaf = MediaSpec(SPEC.preprocess, 4, 0)
    assert decode_media({"flac": sound}, deaf).sound is None
    assert decode_media({"txt": b"a"}, SPEC).pictures is None
    with pytest.raises(BadSample):
        decode_media({**frames, "003.jpg": b"broken"}, SPEC)


def test_frames_are_evenly_spaced_from_first_to_last_and_one_is_the_middle() -> None:
    names = [f"{at:03d}" for at in range(30)]
    for count in range(2, 31):
        chosen = [int(name) for name in evenly_spaced(names, count)]
        assert len(set(chosen)) == count
        assert chosen == sorted(chosen)
        assert (chosen[0], chosen[-1]) == (0, 29)
        assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    assert evenly_spaced(names, 99) == names
    assert evenly_spaced(names, 1) == ["015"]
    assert evenly_spaced([], 4) == []
