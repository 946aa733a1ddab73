from __future__ import annotations

import io
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from mmdata.errors import DataError
from mmdata.score import decode
from mmdata.score.decode import BATCHES_AHEAD, Batch, Decoder, Member, PictureMeasures, decode_picture, jpeg_reduction
from mmdata.score.preprocess import Preprocess
from tests.support.scoring import encode, photo

PREPROCESS = Preprocess(size=(64, 64))


def write_tar(path: Path, blobs: list[bytes]) -> list[Member]:
    with tarfile.open(path, "w") as tar:
        for number, blob in enumerate(blobs):
            header = tarfile.TarInfo(f"{number}.jpg")
            header.size = len(blob)
            tar.addfile(header, io.BytesIO(blob))
    with tarfile.open(path) as tar:
        return [Member(header.offset_data, header.size) for header in tar]


def batches(path: UPath | Path, members: list[Member], batch_size: int = 4, threads: int = 2) -> list[Batch]:
    with Decoder(UPath(path), members, PREPROCESS, batch_size, threads) as decoder:
        return list(decoder)


def decode_at(data: bytes, size: int = 64) -> tuple[PictureMeasures, np.ndarray]:
    out = np.full((size, size, 3), 99, np.uint8)
    return decode_picture(data, Preprocess(size=(size, size)), out), out


def test_batches_come_in_the_order_of_the_members(tmp_path: Path) -> None:
    members = write_tar(tmp_path / "a.tar", [encode(photo(i, 100 + i, 90)) for i in range(21)])
    decoded = batches(tmp_path / "a.tar", members[::-1], batch_size=5)
    assert [b.start for b in decoded] == [0, 5, 10, 15, 20]
    assert [measured.width for b in decoded for measured in b.measures] == [120 - i for i in range(21)]


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (3, 8), (64, 3)])
def test_neither_batches_nor_threads_change_what_is_decoded(tmp_path: Path, batch_size: int, threads: int) -> None:
    members = write_tar(tmp_path / "a.tar", [encode(photo(i, 90, 120)) for i in range(17)] + [b"broken"])
    plain, other = batches(tmp_path / "a.tar", members), batches(tmp_path / "a.tar", members, batch_size, threads)
    assert np.array_equal(np.concatenate([b.pixels for b in plain]), np.concatenate([b.pixels for b in other]))
    assert [x for b in plain for x in b.measures] == [x for b in other for x in b.measures]


def test_a_slow_thread_does_not_shuffle_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = write_tar(tmp_path / "a.tar", [encode(photo(i, 80 + i, 70)) for i in range(32)])
    decode_one = decode.decode_picture

    def uneven(data: bytes, preprocess: Preprocess, out: np.ndarray, faces: None = None) -> PictureMeasures:
        time.sleep(0.01 if len(data) % 2 else 0)
        return decode_one(data, preprocess, out)

    monkeypatch.setattr(decode, "decode_picture", uneven)
    decoded = batches(tmp_path / "a.tar", members, batch_size=16, threads=8)
    assert [measured.width for b in decoded for measured in b.measures] == list(range(80, 112))


def test_decoding_runs_ahead_but_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = write_tar(tmp_path / "a.tar", [encode(photo(0, 64, 64))] * 40)
    done, lock = [], threading.Lock()
    decode_one = decode.decode_picture

    def counted(data: bytes, preprocess: Preprocess, out: np.ndarray, faces: None = None) -> PictureMeasures:
        with lock:
            done.append(1)
        return decode_one(data, preprocess, out)

    monkeypatch.setattr(decode, "decode_picture", counted)
    with Decoder(UPath(tmp_path / "a.tar"), members, PREPROCESS, 4, threads=4) as decoder:
        iterator = iter(decoder)
        next(iterator)
        decoder._pool.submit(int).result()
        deadline = time.monotonic() + 5
        while len(done) < 4 * BATCHES_AHEAD and time.monotonic() < deadline:
            time.sleep(0.005)
        assert 4 * BATCHES_AHEAD <= len(done) <= 4 * (BATCHES_AHEAD + 1)


def test_leaving_early_ends_the_threads(tmp_path: Path) -> None:
    members = write_tar(tmp_path / "a.tar", [encode(photo(0, 64, 64))] * 100)
    with Decoder(UPath(tmp_path / "a.tar"), members, PREPROCESS, 4) as decoder:
        next(iter(decoder))
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_no_members_need_no_tar(tmp_path: Path) -> None:
    assert batches(tmp_path / "none.tar", []) == []


def test_a_missing_tar_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tar.*Remedy"):
        batches(tmp_path / "gone.tar", [Member(512, 10)])


def test_members_beyond_the_tar_are_a_problem_of_their_own(tmp_path: Path) -> None:
    [good] = write_tar(tmp_path / "a.tar", [encode(photo(1))])
    odd = [Member(10**9, 100), Member(good.offset, 10**9), Member(-1, 0), Member(0, 0), Member(-5, 20), good]
    [batch] = batches(tmp_path / "a.tar", odd, batch_size=9)
    assert [measured.problem for measured in batch.measures] == ["missing_bytes"] * 5 + [None]
    assert not batch.pixels[:5].any()


def test_a_tar_on_an_object_store_is_read(tmp_path: Path) -> None:
    members = write_tar(tmp_path / "a.tar", [encode(photo(i)) for i in range(3)])
    remote = UPath("memory://bucket/a.tar")
    remote.write_bytes((tmp_path / "a.tar").read_bytes())
    [there], [here] = batches(remote, members), batches(tmp_path / "a.tar", members)
    assert np.array_equal(there.pixels, here.pixels)


JPEG = encode(photo(1))
BROKEN = {
    "empty": b"",
    "text": b"<html>404</html>",
    "cut in half": JPEG[: len(JPEG) // 2],
    "header only": JPEG[:200],
    "zeros": bytes(5000),
    "png cut": encode(photo(1), "PNG")[:3000],
    "png with a bad check sum": encode(photo(1), "PNG")[:60] + b"\xff" * 4 + encode(photo(1), "PNG")[64:],
    "gif of no size": b"GIF89a\x00\x00\x00\x00\x00\x00\x00;",
    "marker at the end of nothing": b"\xff\xd8\xff\xe0" + b"\x00" * 50 + b"\xff\xd9",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_bytes_are_undecodable_and_black(data: bytes) -> None:
    measured, out = decode_at(data)
    assert measured == PictureMeasures(problem="undecodable")
    assert not out.any()


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_raises(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encode(photo(seed % 3, 96, 80), ("JPEG", "PNG", "WEBP")[seed % 3]))
    for at in rng.integers(0, len(data), 20):
        data[at] = rng.integers(0, 256)
    measured, _ = decode_at(bytes(data))
    assert measured.problem in (None, "undecodable", "too_many_pixels")
    assert (measured.problem is None) == (measured.phash is not None)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    for kind in ("PNG", "JPEG"):
        assert decode_at(encode(photo(1, 40, 30), kind))[0] == PictureMeasures(problem="too_many_pixels")
    bomb = bytearray(encode(photo(1, 40, 30), "PNG"))
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    assert decode_at(bytes(bomb))[0].problem in ("too_many_pixels", "undecodable")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P", "RGBA", "LA", "I;16", "1"])
def test_every_colour_mode_looks_as_pillow_shows_it(mode: str) -> None:
    picture = photo(2, 64, 64).convert("L").convert("I;16") if mode == "I;16" else photo(2, 64, 64).convert(mode)
    kind = "JPEG" if mode in ("L", "RGB", "CMYK") else "PNG"
    data = encode(picture, kind)
    measured, out = decode_at(data)
    wanted = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (measured.problem, measured.width, measured.height) == (None, 64, 64)
    assert np.abs(out.astype(int) - wanted).max() <= 1


def test_colours_are_rgb_at_every_reduction() -> None:
    for side in (256, 600, 1200, 2400):
        _, out = decode_at(encode(Image.new("RGB", (side, side), (200, 40, 10))))
        assert np.abs(out.astype(int) - (200, 40, 10)).max() <= 3


def test_reduction_leaves_what_model_and_sharpness_need() -> None:
    model = Preprocess(size=(224, 224))
    sides = {255: 1, 511: 1, 512: 2, 1023: 2, 1024: 4, 2048: 8, 40_000: 8}
    assert {s: jpeg_reduction(s, s + 99, model) for s in sides} == sides
    assert jpeg_reduction(600, 600, Preprocess(size=(384, 384))) == 1
    assert jpeg_reduction(3000, 300, Preprocess(size=(64, 64))) == 1  # the shorter side counts


def test_a_reduced_decode_keeps_the_picture_and_its_measures() -> None:
    picture = photo(5, 1400, 1100)
    reduced, pixels = decode_at(encode(picture, quality=95), 224)
    whole, exact = decode_at(encode(picture, "PNG"), 224)
    assert np.abs(pixels.astype(int) - exact).mean() < 3
    assert reduced.phash is not None and whole.phash is not None and (reduced.phash ^ whole.phash).bit_count() <= 2
    assert reduced.sharpness is not None and whole.sharpness is not None
    assert 0.5 < reduced.sharpness / whole.sharpness < 2  # on grain, the worst case
    assert (reduced.width, reduced.height) == (1400, 1100)


def test_orientation_tags_are_ignored_as_in_open_clip() -> None:
    picture = photo(6, 120, 60)
    tag = Image.Exif()
    tag[0x0112] = 6
    measured, out = decode_at(encode(picture, exif=tag))
    assert (measured.width, measured.height) == (120, 60)
    assert np.array_equal(out, decode_at(encode(picture))[1])
