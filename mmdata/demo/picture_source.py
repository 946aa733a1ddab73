"""Write the demo's picture source: pictures on the site, LAION-style metadata, and the truth about each row."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.demo.drawings import Photo, draw
from mmdata.demo.picture_plan import Picture, Row
from mmdata.samples import sample_uid
from mmdata.sources.problems import clean_caption, place_uid, problem_of
from mmdata.stage import Progress
from mmdata.urls import canonical_url

PICTURE_SOURCE = "web"
BOMB_SIDE_PX = 40_000
PICTURES_PER_PROGRESS = 50

_FILE_SHARES = (0.5, 0.25, 0.25)  # of the rows; one more file is empty

_LAION_COLUMNS = pa.schema(
    {
        **{"URL": pa.string(), "TEXT": pa.string(), "WIDTH": pa.int64(), "HEIGHT": pa.int64()},
        **{"similarity": pa.float64(), "hash": pa.int64(), "punsafe": pa.float32(), "pwatermark": pa.float32()},
        **{"LANGUAGE": pa.string()},
    }
)
_TRUTH_COLUMNS = pa.schema(
    {
        **{"uid": pa.string(), "file": pa.string(), "row": pa.int64(), "planted": pa.string(), "kind": pa.string()},
        **{"of_uid": pa.string()},  # of the row that it copies
    }
)


def write_pictures(site: Path, planned: Sequence[Row], progress: Progress) -> None:
    """Write the files that the rows point at."""
    written: set[str] = set()
    for number, row in enumerate(planned, 1):
        file = row.picture.file if row.picture is not None else row.address
        if file not in written and (data := _file_bytes(row)):
            written.add(file)
            target = site / file
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        if number % PICTURES_PER_PROGRESS == 0 or number == len(planned):
            progress("demo pictures", number, len(planned))


def render(picture: Picture) -> bytes:
    """The bytes of a picture's file; the same for the same picture."""
    from PIL import Image

    if isinstance(picture.subject, Photo):
        image = Image.fromarray(picture.subject.load())
        image.thumbnail((picture.size_px * 4 // 3, picture.size_px * 4 // 3), Image.Resampling.LANCZOS)
    else:
        png = draw(picture.subject, picture.size_px, picture.background, picture.zoom, picture.shift)
        if picture.format == "PNG":
            return png
        image = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, picture.format, quality=picture.quality)
    return buffer.getvalue()


def bomb_png(side_px: int = BOMB_SIDE_PX) -> bytes:
    """A valid PNG of black pixels, 1 bit each: a few hundred kilobytes that decode to gigabytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    compressor = zlib.compressobj(9)
    hundred_rows = bytes((1 + side_px // 8) * 100)
    data = b"".join(compressor.compress(hundred_rows) for _ in range(side_px // 100)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_metadata(folder: Path, planned: Sequence[Row], base_url: str) -> None:
    """Write inbox/pictures-*.parquet, and truth.parquet beside the inbox; `base_url` is that of the site."""
    random = Random(1)
    records = [_record(row, base_url, random) for row in planned]
    for number, row in enumerate(planned):
        if row.planted == "repeated_row" and row.copy_of is not None:
            records[number] = records[row.copy_of]
    truth: list[dict[str, object]] = []
    ends = [round(len(planned) * sum(_FILE_SHARES[: n + 1])) for n in range(len(_FILE_SHARES))]
    for file_number, (begin, end) in enumerate(pairwise([0, *ends])):
        file = f"pictures-{file_number:03d}.parquet"
        table = pa.Table.from_pylist(records[begin:end], _LAION_COLUMNS)
        pq.write_table(table, folder / "inbox" / file, row_group_size=200)
        for row_in_file, (record, row) in enumerate(zip(records[begin:end], planned[begin:end], strict=True)):
            uid = _uid(record, file, row_in_file)
            truth.append({"uid": uid, "file": file, "row": row_in_file, "planted": row.planted, "kind": row.kind})
    pq.write_table(_LAION_COLUMNS.empty_table(), folder / "inbox" / f"pictures-{len(ends):03d}.parquet")
    for entry, row in zip(truth, planned, strict=True):
        entry["of_uid"] = None if row.copy_of is None else truth[row.copy_of]["uid"]
    pq.write_table(pa.Table.from_pylist(truth, _TRUTH_COLUMNS), folder / "truth.parquet")


def _file_bytes(row: Row) -> bytes | None:
    """The file that a row needs on the site; None: it needs none."""
    if row.picture is not None:
        return render(row.picture)
    if row.planted == "bomb":
        return bomb_png()
    if row.planted == "broken_image":
        noise = Random(row.address).randbytes(2_000)
        has_jpeg_header = int(row.address[-5]) % 2 == 0  # every second one, by the digit before `.jpg`
        return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + noise if has_jpeg_header else noise
    return None


def _record(row: Row, base_url: str, random: Random) -> dict[str, object]:
    url = row.address if "://" in row.address or not row.address else f"{base_url}/{row.address}"
    size_px = row.picture.size_px if row.picture is not None else 256
    return {
        "URL": url,
        "TEXT": row.caption,
        "WIDTH": size_px,
        "HEIGHT": size_px,
        "similarity": random.choice((float("nan"), round(random.uniform(0.28, 0.42), 4))),
        "hash": random.getrandbits(63),
        "punsafe": random.uniform(0.0, 0.2),
        "pwatermark": random.uniform(0.85, 0.99) if row.planted == "watermark" else random.uniform(0.0, 0.5),
        "LANGUAGE": row.language,
    }


def _uid(record: dict[str, object], file: str, row_in_file: int) -> str:
    """The uid that the rows stage will give a record."""
    url, caption = str(record["URL"]), clean_caption(str(record["TEXT"]))
    if problem_of(url.strip(), caption) is not None:
        return place_uid(PICTURE_SOURCE, file, row_in_file)
    return sample_uid(canonical_url(url), caption)
