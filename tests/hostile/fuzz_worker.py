"""Feeds damaged files to one reader, in a process of its own: `python fuzz_worker.py KIND SEED COUNT FOLDER`.

Before each input its number stands in FOLDER/at, so that a crash or a hang is known by it; what came of them all is
printed as JSON. The inputs are a function of KIND, SEED and their number.
"""

from __future__ import annotations

import faulthandler
import io
import json
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMORY_BYTES = 12 << 30  # of address space; libraries reserve much more than they use
SLOW_S = 20.0
EXTREMES = [
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x01",
]

Reader = Callable[[bytes, str, Path], str]
"""Bytes, the file's ending and a folder -> what became of it, in one word."""


def damaged(body: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """One of the ways in which files arrive broken, or are broken on purpose."""
    data = bytearray(body)
    kind = draw.randrange(7)
    if kind == 0:  # bits
        for _ in range(draw.choice([1, 3, 12, 60])):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 1:  # bytes of the head, where sizes stand
        for _ in range(draw.choice([1, 4, 16])):
            data[draw.randrange(min(len(data), 400))] = draw.randrange(256)
    elif kind == 2:  # a number at its extreme
        at = draw.randrange(max(1, len(data) - 4))
        data[at : at + 4] = draw.choice(EXTREMES)
    elif kind == 3:
        data = data[: draw.randrange(len(data))]
    elif kind == 4:  # another file's head
        other = draw.choice(others)
        cut = draw.choice([8, 64, 300])
        data[:cut] = other[:cut]
    elif kind == 5:  # a piece twice, or gone
        start, length = draw.randrange(len(data)), draw.randrange(1, 2000)
        data[start : start + draw.choice([0, length])] = data[start : start + length] * draw.choice([0, 1, 3])
    else:  # the end, where Parquet and MP4 keep what they are
        for _ in range(draw.choice([1, 6])):
            data[len(data) - 1 - draw.randrange(min(len(data), 600))] = draw.randrange(256)
    return bytes(data)


def images() -> tuple[dict[str, bytes], Reader]:
    import numpy as np
    from PIL import Image

    from mmdata.config import Download
    from mmdata.download.images import process_image
    from mmdata.score.decode import decode_pixels
    from mmdata.score.preprocess import Preprocess
    from tests.support.odd_pictures import FILES

    across = np.linspace(0, 255, 300, dtype=np.uint8)
    picture = Image.fromarray(np.stack([np.tile(across, (280, 1))] * 3, -1))
    bodies: dict[str, bytes] = {}
    for form, options in {
        **{form: {} for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")},
        "TIFF-deflate": {"compression": "tiff_deflate"},
        "JPEG-progressive": {"progressive": True},
        "PNG-16": {},
        "GIF-film": {"save_all": True, "append_images": [picture.rotate(9)] * 3},
    }.items():
        buffer, own = io.BytesIO(), picture
        if form == "PNG-16":
            own = Image.fromarray(np.tile(across.astype(np.uint16) * 257, (280, 1)))
        own.save(buffer, form.partition("-")[0], **options)
        bodies[f"{form}.img"] = buffer.getvalue()
    bodies |= {f"{name}.img": make() for name, make in FILES.items()}
    bodies["svg.img"] = b'<svg xmlns="http://www.w3.org/2000/svg" width="9e9" height="9e9"><rect width="9"/></svg>' * 9
    download = Download(max_pixels=4_000_000)
    preprocess = Preprocess(size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)

    def read(body: bytes, ending: str, folder: Path) -> str:
        del ending, folder
        found = process_image(body, download)
        assert found.status in ("success", "failed_to_resize", "refused")
        assert (found.failure is None) == (found.status == "success") == (found.data is not None)
        with suppress(ValueError):
            decode_pixels(body, preprocess)  # what lies in a shard may be damaged, too
        return found.failure.error if found.failure else "success"

    return bodies, read


def films() -> tuple[dict[str, bytes], Reader]:
    import tempfile

    from mmdata.media.clip import ClipOptions
    from mmdata.media.cutting import Span
    from mmdata.media.decoder_pool import DecoderPool
    from tests.support.made_videos import make

    bodies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, changes in {
            "a.mp4": {},
            "a.mkv": {},
            "a.webm": {"video": "libvpx", "sound": "libopus"},
            "a.avi": {"video": "mpeg4", "sound": None},
            "a.ts": {"video": "mpeg2video", "sound": "mp2"},
            "a.flac": {"video": None, "sound": "flac"},
            "a.ogg": {"video": None, "sound": "libvorbis"},
            "a.wav": {"video": None, "sound": "pcm_s16le"},
            "a.mp3": {"video": None, "sound": "libmp3lame"},
        }.items():
            try:
                path = make(Path(scratch) / name, seconds=1.5, size=(64, 48), fps=10, gop=5, **changes)
                bodies[name] = path.read_bytes()
            except Exception:  # noqa: BLE001 - an encoder that this build of FFmpeg lacks
                continue
    assert len(bodies) >= 5
    options = ClipOptions(
        frames=2, choose="uniform", sound=True, keep_video=False, image_size=32, quality=80, max_pixels=1_000_000
    )
    pool = DecoderPool(1, 10.0)

    def read(body: bytes, ending: str, folder: Path) -> str:
        path = folder / f"film{ending}"
        path.write_bytes(body)
        kind = "audio" if ending in (".flac", ".ogg", ".wav", ".mp3") else "video"
        with pool.decode(path, kind, [Span(0.0, 0.7), Span()], options) as decoded:
            assert len(decoded.clips) == 2
            for clip in decoded.clips:
                assert (clip.problem is None) == bool(clip.members), "a reason or a clip"
            return decoded.clips[0].problem or "success"

    return bodies, read


def captions() -> tuple[dict[str, bytes], Reader]:
    from mmdata.config import Clips
    from mmdata.sources.subtitles import read_captions
    from mmdata.sources.timed import clips_of

    vtt = "WEBVTT\n\n" + "".join(
        f"00:00:{n:02d}.000 --> 00:00:{n + 1:02d}.500\nwords <b>{n}</b> &amp;\n\n" for n in range(40)
    )
    bodies = {
        "a.vtt": vtt.encode(),
        "a.srt": vtt.replace("WEBVTT\n\n", "1\n").replace(".", ",").encode(),
        "a.csv": ("start,end,text\n" + "".join(f'{n},{n + 2},"say ""{n}"" 海"\n' for n in range(60))).encode(),
    }

    def read(body: bytes, ending: str, folder: Path) -> str:
        del folder
        found = read_captions(body, ending)
        if isinstance(found, str):
            return found
        clips, told = clips_of(found, Clips())
        assert all(clip.end_s > clip.start_s for clip in clips)
        return "success" if clips else next(iter(told), "none")

    return bodies, read


def tables() -> tuple[dict[str, bytes], Reader]:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq
    from upath import UPath

    from mmdata.config import Source
    from mmdata.errors import DataError
    from mmdata.sources.source_files import look_into, read_batches

    table = pa.table({
        "url": [f"https://host/{n}.jpg" for n in range(300)],
        "caption": [f"words {n} 海" for n in range(300)],
        "score": pa.array([n / 7 for n in range(300)], pa.float32()),
        "tags": [[f"t{n}", None] for n in range(300)],
        "more": [{"a": n, "b": {"c": str(n)}} for n in range(300)],
    })  # fmt: skip
    bodies: dict[str, bytes] = {}
    for name, options in {
        "snappy": {"compression": "snappy"},
        "zstd": {"compression": "zstd", "row_group_size": 50},
        "plain": {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
    }.items():
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        bodies[f"{name}.parquet"] = sink.getvalue()
    rows = table.select(["url", "caption"]).to_pylist()
    bodies["a.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    bodies["a.csv"] = ("url,caption\n" + "".join(f'{r["url"]},"{r["caption"]}"\n' for r in rows)).encode()
    bodies["a.csv.gz"] = gzip.compress(bodies["a.csv"])
    bodies["a.tsv"] = bodies["a.csv"].replace(b",", b"\t")

    def read(body: bytes, ending: str, folder: Path) -> str:
        path = UPath(folder / f"table{ending}")
        path.write_bytes(body)
        source = Source(name="web", kind="pairs", files=str(path), columns={"url": "url", "caption": "caption"})
        seen = look_into(source, path, len(body))
        if seen.status != "ok":
            assert seen.error
            return seen.status
        assert seen.rows <= 100 * len(body)
        stop = min(seen.rows, 100_000)
        try:
            batches = list(read_batches(source, path, 0, stop))
        except DataError:
            return "broken"
        assert sum(len(batch.urls) for batch in batches) == stop, "a row is lost"
        return "success"

    return bodies, read


def weights() -> tuple[dict[str, bytes], Reader]:
    import torch
    from safetensors.torch import save

    from mmdata.errors import UserError
    from mmdata.score.offline import read_projections

    bodies = {"a.safetensors": save({"weight": torch.zeros(8, 8), "bias": torch.ones(8)}, {"training": "{}"})}
    bodies["b.safetensors"] = struct.pack("<Q", 2) + b"{}"

    def read(body: bytes, ending: str, folder: Path) -> str:
        path = folder / f"weights{ending}"
        path.write_bytes(body)
        try:
            read_projections(path)
        except UserError:
            return "refused"
        return "success"

    return bodies, read


KINDS: dict[str, Callable[[], tuple[dict[str, bytes], Reader]]] = {
    "images": images,
    "films": films,
    "captions": captions,
    "tables": tables,
    "weights": weights,
}


def inputs(bodies: dict[str, bytes], seed: int, count: int) -> Iterator[tuple[int, str, bytes]]:
    names = sorted(bodies)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        yield number, "." + name.partition(".")[2], damaged(bodies[name], list(bodies.values()), draw)


def main(kind: str, seed: int, count: int, folder: Path) -> dict[str, Any]:
    faulthandler.enable()
    bodies, read = KINDS[kind]()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number, ending, body in inputs(bodies, seed, count):
        (folder / "at").write_text(f"{kind} seed {seed} number {number}{ending}")
        faulthandler.dump_traceback_later(2 * SLOW_S, exit=True)
        began = time.monotonic()
        outcomes[read(body, ending, folder)] += 1
        slowest = max(slowest, time.monotonic() - began)
    faulthandler.cancel_dump_traceback_later()
    return {"outcomes": dict(outcomes), "slowest_s": slowest}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))  # noqa: T201
