"""Fetching, resizing and storing pictures from a loopback server, against `img2dataset.download` on the same pictures.

Both sides start from URLs and end with 256-pixel JPEGs of the same quality in tars. The whole run counts, imports and
process starts included, since a person waits for all of it. A second row shows the rate of a long run: it subtracts a
run on half as many pictures, so that start-up does not count, and divides by processor seconds, which other programs
on the machine disturb less than elapsed time. The server runs in another process and shares the cores with both sides.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, Run, cores, measure_in_empty_folder

THREADS = 32
IMAGE_SIZE = 256
QUALITY = 95
PNG_SHARE = 0.1
DISTINCT_PICTURES = 40  # that the server holds; every URL names one of them


def run(quick: bool) -> list[Row]:
    """1,000 pictures of 640 x 480 and 400 of 2400 x 1800; if quick, 100 small ones, and no second row."""
    if quick:
        return compared("download", (640, 480), 100, rounds=1)[:1]
    return compared("download", (640, 480), 1000, rounds=3) + compared("download, large", (2400, 1800), 400, rounds=3)


def compared(name: str, size: tuple[int, int], count: int, rounds: int) -> list[Row]:
    """Two rows: the whole run on `count` pictures, and its second half without the start-up."""
    sides = (fetch_ours, fetch_img2dataset)
    with serving(size) as base:
        halves, wholes = [], []
        for _ in range(rounds):
            halves.append([measure_in_empty_folder(side, base, count // 2) for side in sides])
            wholes.append([measure_in_empty_folder(side, base, count) for side in sides])
    ours, peer = (Side([half[i] for half in halves], [whole[i] for whole in wholes]) for i in (0, 1))
    return [
        Row(
            f"{name}, {count:,} of {size[0]} x {size[1]}",
            "images/s",
            ours.images_per_s,
            peer.images_per_s,
            ours.peak_mib,
            peer.peak_mib,
            goal=2.0,
            note="whole run with imports; peer: img2dataset.download, a process per core, 32 threads each",
        ),
        Row(
            f"{name}, start-up taken out",
            "images/CPU-s",
            ours.images_per_cpu_s,
            peer.images_per_cpu_s,
            ours.peak_mib,
            peer.peak_mib,
            note="the rate of a long run",
        ),
    ]


@dataclass(frozen=True)
class Side:
    """The runs of one side: on half of the pictures, and on all."""

    halves: list[Run]
    wholes: list[Run]

    @property
    def peak_mib(self) -> float:
        return max(run.peak_mib for run in self.wholes)

    @property
    def images_per_s(self) -> float:
        """Images per second of elapsed time."""
        return statistics.median(run.work / run.wall_s for run in self.wholes)

    @property
    def images_per_cpu_s(self) -> float:
        """Images per processor second, in the second half of the run."""
        pairs = zip(self.halves, self.wholes, strict=True)
        return statistics.median((b.work - a.work) / max(b.cpu_s - a.cpu_s, 1e-3) for a, b in pairs)


def urls(base: str, count: int) -> list[str]:
    """URLs of `count` pictures on the server, a tenth of them PNG."""
    return [f"{base}/{number}.{'png' if number % round(1 / PNG_SHARE) == 0 else 'jpg'}" for number in range(count)]


def fetch_ours(base: str, count: int, folder: Path) -> float:
    """`mmdata.download.stage.fetch_part` on a part of one slice, in one process, with as many threads as the peer."""
    from mmdata.config.load import parse_corpus
    from mmdata.download.stage import fetch_part
    from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
    from mmdata.samples import ROWS, sample_uid, table_of
    from mmdata.workspace.layout import Catalog, Part, Workspace

    download = {
        "image_size": IMAGE_SIZE,
        "encode_quality": QUALITY,
        "threads": THREADS,
        "per_host": THREADS,
        "allow_hosts": ["127.0.0.0/8"],
    }
    source = {"name": "web", "kind": "laion", "files": "none"}
    corpus = parse_corpus({"workspace": str(folder), "sources": [source], "download": download})
    workspace, part = Workspace(folder), Part("web-000000", "web", "none", 0, count, "digest")
    workspace.write_catalog(Catalog(parts={part.name: part}))
    same_for_all = {"source": "web", "part": part.name, "kind": "image", "copies": 1, "caption": "a picture"}
    rows = [
        {**same_for_all, "uid": sample_uid(url, "a picture"), "url": url, "row": row}
        for row, url in enumerate(urls(base, count))
    ]
    stamp = publish_slice(workspace, part.name, "rows", "0000", "made", SliceResult(table_of(rows, ROWS)))
    stamp_part(workspace, part.name, "rows", "made", {"0000": stamp}, None)
    report = fetch_part(corpus, workspace, part.name)
    return _check_all(count, report.counts.get("success", 0), "ours")


def fetch_img2dataset(base: str, count: int, folder: Path) -> float:
    """`img2dataset.download` on as many shards as cores, so that none of its processes idles."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import pyarrow as pa
    import pyarrow.parquet as pq
    from img2dataset import download

    table = pa.table({"url": urls(base, count), "caption": ["a picture"] * count})
    pq.write_table(table, folder / "urls.parquet")
    _redirect_output(folder / "log")
    download(
        str(folder / "urls.parquet"),
        input_format="parquet",
        url_col="url",
        caption_col="caption",
        output_folder=str(folder / "out"),
        output_format="webdataset",
        image_size=IMAGE_SIZE,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=QUALITY,
        processes_count=cores(),
        thread_count=THREADS,
        number_sample_per_shard=-(-count // cores()),
    )
    stats = [json.loads(path.read_text()) for path in (folder / "out").glob("*_stats.json")]
    return _check_all(count, sum(shard["successes"] for shard in stats), "img2dataset")


def _redirect_output(log: Path) -> None:
    """Send the output of this process and its children to a file: img2dataset's processes print their speed."""
    with log.open("w") as file:
        for handle in (1, 2):
            os.dup2(file.fileno(), handle)


def _check_all(count: int, successes: int, side: str) -> float:
    if successes != count:
        raise RuntimeError(f"{side}: {successes} of {count} pictures; the comparison would not be fair")
    return float(count)


@contextmanager
def serving(size: tuple[int, int]) -> Iterator[str]:
    """Run a loopback server in another process; yields its base URL."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, size), daemon=True)
    process.start()
    sender.close()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(ready: Any, size: tuple[int, int]) -> None:
    bodies = {
        ext: [_answer(_picture(number, size, ext), ext) for number in range(DISTINCT_PICTURES)]
        for ext in ("jpg", "png")
    }

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.request = transport, b""

        def data_received(self, data: bytes) -> None:
            self.request += data
            if self.request.endswith(b"\r\n\r\n"):
                name, _, ext = self.request.split(b" ", 2)[1].decode().lstrip("/").partition(".")
                self.transport.write(bodies[ext][int(name) % DISTINCT_PICTURES])
                self.transport.close()

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def _answer(body: bytes, ext: str) -> bytes:
    kind = "jpeg" if ext == "jpg" else ext
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/{kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _picture(number: int, size: tuple[int, int], ext: str) -> bytes:
    """Soft shapes with some grain: about 70 kB as a JPEG of 640 x 480; every other PNG has transparency."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (size[1] // 40, size[0] // 40, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = (int(rng.integers(0, size[0])), int(rng.integers(0, size[1])))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(pixels, centre, size[1] // 12, colour, -1, cv2.LINE_AA)
    grain = rng.normal(0, 6, pixels.shape)
    pixels = (pixels + grain).clip(0, 255).astype(np.uint8)
    if ext == "jpg":
        return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    if number % 2:
        alpha = np.full(pixels.shape[:2], 255, np.uint8)
        alpha[: size[1] // 4] = 0
        pixels = np.dstack([pixels, alpha])
    return bytes(cv2.imencode(".png", pixels)[1])
